"""Calls on networks, their weights, bundled samples, and a folder of pictures."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit.api.calls import call
from toolkit.api.options import source_of
from toolkit.api.results import Checked
from toolkit.errors import UserError


@call
def models(
    name: str | None = None,
    *,
    draw: str | os.PathLike[str] | None = None,
    filters: str | os.PathLike[str] | None = None,
) -> Any:
    """List the networks, or one network's layers.

    >>> import toolkit
    >>> [row["name"] for row in toolkit.models() if row["name"].startswith("alexnet")]
    ['alexnet', 'alexnet_owt']
    >>> sum(layer["params"] for layer in toolkit.models("lenet5"))
    61706

    Args:
        name: of a network.
        draw: draw its blocks to this ``.svg`` or ``.png`` file.
        filters: draw classic edge detectors and their answers to this file instead.

    Returns:
        A row for each network, or for each layer; ``{"path"}`` of the file of edge detectors.

    Raises:
        UserError: no such network, or a file that cannot be written.
    """
    if filters:
        from toolkit.draw import draw_filters

        if name:
            raise UserError(f"--filters draws filters of no network: leave out {name}")
        draw_filters(Path(filters))
        return {"path": os.fspath(filters)}
    from toolkit.catalogue import list_models, model_info

    if name:
        from toolkit.arithmetic import layer_table

        return [asdict(row) for row in layer_table(drawn_network(name, draw))]
    if draw:
        raise UserError("--draw draws one network: give its name, as in `toolkit models resnet50 --draw resnet50.svg`")
    fields = "name title year input_shape num_params macs stages weights deviations paper"
    rows = [{field: getattr(model_info(own), field) for field in fields.split()} for own in list_models()]
    return [row | {"weights": sorted(row["weights"])} for row in rows]


def drawn_network(name: str, draw: str | os.PathLike[str] | None) -> Any:
    """Build a network, and draw its blocks where a file is named."""
    from toolkit.catalogue import model_info
    from toolkit.draw import check_path, draw_model
    from toolkit.factory import create_model

    info = model_info(name)
    if draw:
        check_path(Path(draw))
    model = create_model(info.name)
    if draw:
        draw_model(model, Path(draw), title=info.title)
    return model


@call
def list_weights(model: str | None = None) -> list[dict[str, Any]]:
    """List the weights that were published for every network, or for one, and what of it is here.

    >>> import toolkit
    >>> [row["tag"] for row in toolkit.list_weights("googlenet")]
    ['imagenet', 'imagenet-caffe']

    Args:
        model: see ``toolkit.list_models``.

    Returns:
        A row for each network and tag, with ``"top1"``, ``"top5"``, ``"licence"``, ``"url"``, ``"cached"`` and more.
    """
    from toolkit.workflows import weights

    return weights.list_weights(model)


@call
def download_weights(model: str, tag: str = "imagenet") -> Path:
    """Bring a file of weights into the cache, if it is not there, and check it.

    Args:
        model: see ``toolkit.list_models``.
        tag: see ``toolkit.list_weights``.

    Returns:
        The file.
    """
    from toolkit.workflows import weights

    return weights.download_weights(model, tag)


@call
def verify_weights(model: str, weights: str = "imagenet") -> dict[str, Any]:
    """Check a downloaded file of weights, or any file, and load it into the network.

    Args:
        model: see ``toolkit.list_models``.
        weights: a tag or a file.

    Returns:
        ``{"path", "digest", "source", "variant", "num_tensors", "preprocessing"}``.
    """
    from toolkit.workflows import weights as journeys

    return journeys.verify_weights(model, weights)


@call
def convert_weights(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, model: str, deepen: str | None = None
) -> dict[str, Any]:
    """Write any file of weights that fits a network as ``.safetensors`` or ``.weights.h5``.

    Args:
        source: a tag or a file.
        target: the file to write.
        model: the network that the weights are for.
        deepen: write them for this deeper network, which answers the same.

    Returns:
        ``{"path", "bytes", "variant"}``.
    """
    from toolkit.workflows import weights

    return weights.convert_weights(os.fspath(source), target, model, deeper=deepen)


@call
def samples(name: str, directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Write bundled real pictures into a folder.

    >>> import tempfile
    >>> import toolkit
    >>> toolkit.samples("photographs", f"{tempfile.mkdtemp()}/photographs")["n"] > 1
    True

    Args:
        name: ``"digits"``: 1,797 handwritten digits, a folder a class; ``"photographs"``: two or five to look at.
        directory: a new folder.

    Returns:
        ``{"path", "n"}``.
    """
    from toolkit.data.sources.samples import write_samples

    return {"path": os.fspath(directory), "n": write_samples(name, Path(directory))}


@call
def check(
    data: str | os.PathLike[str],
    *,
    model: str | None = None,
    quarantine: bool | str | os.PathLike[str] | None = None,
    augment_preview: str | os.PathLike[str] | None = None,
    augment: str = "",
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
) -> Checked:
    """Examine a folder of pictures: corrupt, duplicate, leaking, imbalanced. Nothing is changed or deleted.

    Args:
        data: see ``toolkit.finetune``.
        model: also tell which pictures are smaller than this network's input.
        quarantine: write the list of pictures to leave out to this file; True for ``quarantine.txt`` in the folder,
            where training and everything else honours it.
        augment_preview: draw what augmentation makes of the pictures, to this PNG file.
        augment: what augmentation, such as ``"mirror,resized_crop:0.25/1"``; by default one of each.
        split_folders: see ``toolkit.finetune``.
        join_classes: see ``toolkit.finetune``.

    Returns:
        The findings, see ``toolkit.data.doctor.examine_folder``; ``result.report()`` shows pictures.

    Raises:
        UserError: no such data, fewer than two classes, or a file that cannot be written.
    """
    from toolkit.catalogue import model_info
    from toolkit.data import scan_folder
    from toolkit.data.augment import parse
    from toolkit.data.doctor import examine_folder
    from toolkit.data.scan.quarantine import quarantine_file, write_quarantine
    from toolkit.data.sources.source import as_source
    from toolkit.files import require_place

    place = as_source(data).path
    if not place.exists():
        raise UserError(f"{place}: no such folder or file")
    preview = None if augment_preview is None else Path(augment_preview)
    if preview and preview.absolute().resolve().is_relative_to(place.resolve()):
        raise UserError(f"{preview}: lies in the pictures' own folder, and would be taken for one; name another place")
    file = quarantine_file(place) if quarantine is True else Path(quarantine) if quarantine else None
    for written in filter(None, (preview, file)):
        require_place(written)
    parse(augment)
    preprocessing = model_info(model).preprocessing if model else None
    folder = scan_folder(source_of(data, split_folders, join_classes))
    report = examine_folder(folder, input_size=preprocessing.size if preprocessing else None)
    if file:
        write_quarantine(file, dict(folder.quarantined + folder.problems))
        report["quarantine_file"] = str(file)
    if preview:
        from toolkit.data.feed.preview import write_preview
        from toolkit.spec import Preprocessing

        write_preview(folder, preprocessing or Preprocessing(size=(224, 224)), preview, augment=augment)
        report["augment_preview"] = str(preview)
    return Checked(report)
