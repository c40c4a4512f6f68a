"""toolkit: from a folder of pictures to a served, quantized classifier, with the classic convolutional networks.

    >>> import toolkit
    >>> result = toolkit.finetune("photos", model="googlenet")  # doctest: +SKIP
    >>> result.report()  # doctest: +SKIP
    >>> result.export("saved_models/mine")  # doctest: +SKIP

What the command line does, one call does, with the same names. Importing this package imports no framework; names
below load what they need when first used.
"""

import importlib
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from toolkit.api.bundles.building import compress as compress
    from toolkit.api.bundles.building import ensemble as ensemble
    from toolkit.api.bundles.building import import_model as import_model
    from toolkit.api.bundles.hub import pull as pull
    from toolkit.api.bundles.hub import push as push
    from toolkit.api.bundles.runtimes import benchmark as benchmark
    from toolkit.api.bundles.runtimes import demo as demo
    from toolkit.api.bundles.runtimes import evaluate as evaluate
    from toolkit.api.bundles.runtimes import export as export
    from toolkit.api.bundles.runtimes import serve as serve
    from toolkit.api.bundles.runtimes import verify as verify
    from toolkit.api.bundles.versions import answer_examples as answer_examples
    from toolkit.api.bundles.versions import list_bundles as list_bundles
    from toolkit.api.bundles.versions import promote_version as promote_version
    from toolkit.api.bundles.versions import prune_bundles as prune_bundles
    from toolkit.api.bundles.versions import recommend_engine as recommend_engine
    from toolkit.api.bundles.versions import roll_back_version as roll_back_version
    from toolkit.api.bundles.versions import share_traffic as share_traffic
    from toolkit.api.bundles.versions import verify_version as verify_version
    from toolkit.api.doctor import doctor as doctor
    from toolkit.api.explaining import explain as explain
    from toolkit.api.networks import check as check
    from toolkit.api.networks import convert_weights as convert_weights
    from toolkit.api.networks import download_weights as download_weights
    from toolkit.api.networks import list_weights as list_weights
    from toolkit.api.networks import models as models
    from toolkit.api.networks import samples as samples
    from toolkit.api.networks import verify_weights as verify_weights
    from toolkit.api.predicting import predict as predict
    from toolkit.api.training import gradcheck as gradcheck
    from toolkit.api.training import train as train
    from toolkit.api.training import tune as tune
    from toolkit.api.transfer import finetune as finetune
    from toolkit.api.transfer import list_cache as list_cache
    from toolkit.api.transfer import prune_cache as prune_cache
    from toolkit.api.transfer import verify_cache as verify_cache
    from toolkit.catalogue import list_models as list_models
    from toolkit.catalogue import model_info as model_info
    from toolkit.client import AsyncClient as AsyncClient
    from toolkit.client import Client as Client
    from toolkit.data.feed.handed import pipeline as pipeline
    from toolkit.data.scan.folder import ImageFolder as ImageFolder
    from toolkit.data.scan.folder import scan_arrays as scan_arrays
    from toolkit.data.scan.folder import scan_folder as scan_folder
    from toolkit.data.sources.source import Source as Source
    from toolkit.errors import UserError as UserError
    from toolkit.factory import create_model as create_model
    from toolkit.factory import load_weights as load_weights
    from toolkit.factory import preprocessing_of as preprocessing_of
    from toolkit.factory import save_weights as save_weights
    from toolkit.inference import Predictor as Predictor
    from toolkit.spec import Preprocessing as Preprocessing

_NAMES = {
    "toolkit.api.bundles.building": "compress ensemble import_model",
    "toolkit.api.bundles.hub": "pull push",
    "toolkit.api.bundles.runtimes": "benchmark demo evaluate export serve verify",
    "toolkit.api.bundles.versions": "answer_examples list_bundles promote_version prune_bundles recommend_engine "
    "roll_back_version share_traffic verify_version",
    "toolkit.api.doctor": "doctor",
    "toolkit.api.explaining": "explain",
    "toolkit.api.networks": "check convert_weights download_weights list_weights models samples verify_weights",
    "toolkit.api.predicting": "predict",
    "toolkit.api.training": "gradcheck train tune",
    "toolkit.api.transfer": "finetune list_cache prune_cache verify_cache",
    "toolkit.catalogue": "list_models model_info",
    "toolkit.client": "AsyncClient Client",
    "toolkit.data.feed.handed": "pipeline",
    "toolkit.data.scan.folder": "ImageFolder scan_arrays scan_folder",
    "toolkit.data.sources.source": "Source",
    "toolkit.errors": "UserError",
    "toolkit.factory": "create_model load_weights preprocessing_of save_weights",
    "toolkit.inference": "Predictor",
    "toolkit.spec": "Preprocessing",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
# Packages of the same name as a call; called, they are the call.
_CALLABLE = ("compress", "demo", "ensemble", "explain", "export", "models")

__all__ = ["__version__", *_HOME]


class _CallPackage(ModuleType):
    """A package that is a call, too, such as ``toolkit.compress``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _call_of(self)(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_call_of(self))


def _call_of(package: ModuleType) -> Any:
    name = package.__name__.rpartition(".")[2]
    return getattr(importlib.import_module(_HOME[name]), name)


class _Toolkit(ModuleType):
    """This package. What the import of a package below it sets here is made callable where a call has its name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLABLE and type(value) is ModuleType:
            value.__class__ = _CallPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Toolkit


def __getattr__(name: str) -> Any:
    if name in _HOME and name not in _CALLABLE:
        return getattr(importlib.import_module(_HOME[name]), name)
    try:
        return importlib.import_module(f"toolkit.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"toolkit.{name}":
            raise AttributeError(f"module 'toolkit' has no attribute {name!r}") from None
        raise


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
