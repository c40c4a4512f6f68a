"""Whole journeys, for whoever starts one: a folder in, a bundle out."""

from toolkit.workflows.compress import compress_bundle
from toolkit.workflows.finetune import finetune_folder
from toolkit.workflows.run_command import TrainOptions
from toolkit.workflows.steps import ExportOptions
from toolkit.workflows.train import train_folder

__all__ = ["ExportOptions", "TrainOptions", "compress_bundle", "finetune_folder", "train_folder"]
