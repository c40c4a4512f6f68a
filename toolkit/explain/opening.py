"""Networks found for an explanation: of a bundle, of a file that Keras saved, or registered ones with weights."""

import os
from pathlib import Path

from toolkit.bundle import SHIPPED, find_bundle, read_manifest, shipped_bundle
from toolkit.catalogue import list_models, model_info
from toolkit.errors import UserError, did_you_mean, nearest, unknown_name
from toolkit.explain.explainer import Explainer
from toolkit.factory import create_model, preprocessing_of, read_labels
from toolkit.factory.create import locate_weights, network_in
from toolkit.factory.foreign import is_network_file, open_network
from toolkit.network import load_network
from toolkit.progress import step
from toolkit.spec import Preprocessing


def open_explainer(
    source: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Explainer:
    """Open a network to explain.

    Args:
        source: a bundle, whose original network in Keras is taken, never a quantized file; a ``.keras`` or ``.h5`` file
            of a whole classifier; or the name of a registered network.
        weights: of a registered network: a tag, a file, a run or a bundle; by default the best published.
        labels: a text of class names, one a line; by default the bundle's, else numbers.
        preprocessing: of a file's network, where it does not scale its input itself.

    Raises:
        UserError: nothing is there, or it cannot be opened.
    """
    names = read_labels(Path(labels)) if labels is not None else ()
    name = os.fspath(source)
    is_registered = name in list_models() and not Path(name).exists()
    if weights is not None and not is_registered:
        raise UserError(
            unknown_name("model", name, list_models())
            if not Path(name).exists()
            else f"{name}: brings its own weights; leave the weights out, or name a network that they are for"
        )
    if preprocessing is not None and not is_network_file(name):
        raise UserError(f"{name}: knows its preprocessing; one is given for a .keras file only")
    if is_registered:
        return _registered(name, weights, names)
    if is_network_file(name):
        with step(f"opening {name}"):
            model = open_network(name, preprocessing=preprocessing)
        return Explainer(model, preprocessing_of(model), names)
    require_source(name)
    version_dir = find_bundle(name, shipped=True)
    manifest = read_manifest(version_dir)
    file, _ = network_in(version_dir)
    with step(f"opening {file}"):
        network = load_network(file)
    return Explainer(network, manifest.preprocessing, names or manifest.labels, version_dir=version_dir)


def require_source(name: str) -> None:
    """Refuse what is neither a file or folder nor the name of a network or of a shipped bundle.

    Raises:
        UserError: see there.
    """
    if not (Path(name).exists() or name in list_models() or is_network_file(name) or shipped_bundle(name)):
        meant = did_you_mean(map(repr, nearest(name, [*list_models(), *SHIPPED])))
        raise UserError(f"{name}: no such bundle, file or network{meant} (`toolkit models` lists networks)")


def _registered(name: str, weights: str | os.PathLike[str] | None, labels: tuple[str, ...]) -> Explainer:
    info = model_info(name)
    if weights is None and info.num_params:  # those made by hand train none
        if not info.weights:
            own = [shipped for shipped in SHIPPED if shipped.startswith(f"{name}-")]
            known = f", or explain the project's own {own[0]}" if own else ""
            raise UserError(f"{name} has no published weights ({info.weights_note}); give some by --weights{known}")
        weights = "imagenet"
    located = None if weights is None else locate_weights(info, weights)
    with step(f"building {name}"):
        model = create_model(name, weights=weights)
    if isinstance(located, Path) and located.is_dir() and not labels:
        labels = _labels_in(located)
    return Explainer(model, preprocessing_of(model), labels)


def _labels_in(directory: Path) -> tuple[str, ...]:
    try:
        return read_manifest(find_bundle(directory)).labels
    except UserError:  # a run
        return ()
