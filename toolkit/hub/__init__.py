"""Bundles on the Hugging Face hub: pushed with a model card, pulled whole or not at all."""
