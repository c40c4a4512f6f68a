"""Folders drawn at random: what `check` lets pass trains and fine-tunes, and a picture has one answer in every way."""

import base64
import contextlib
import functools
import io
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from any_folders import FILES, LINKS, OPTIONS, write
from hypothesis import given, settings
from starlette.testclient import TestClient

from toolkit.cli.main import main
from toolkit.data import scan_folder
from toolkit.data.pixels.decode import as_graph_reads
from toolkit.errors import UserError
from toolkit.factory import create_model, save_weights
from toolkit.lazy import keras
from toolkit.serving import create_app

ERROR = "toolkit: error: "


def toolkit(*arguments: object) -> tuple[int, str, list[str]]:
    """Run a command in this process, where a traceback is raised: its status, stdout, and errors on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch("toolkit.cli.main._quiet_libraries"),  # which would take the process's streams over
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
    errors = [line.removeprefix(ERROR) for line in err.getvalue().splitlines() if line.startswith(ERROR)]
    assert status != 0 or not errors, err.getvalue()
    assert status != 2 or len(errors) == 1, err.getvalue()
    return status, out.getvalue(), errors


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """Weights of LeNet-5 for colours, for six classes."""
    keras.utils.set_random_seed(0)
    file = tmp_path_factory.mktemp("pretrained") / "lenet5_rgb.safetensors"
    return save_weights(create_model("lenet5_rgb", num_classes=6), file)


@contextlib.contextmanager
def drawn(files: dict[bytes, bytes], links: list[tuple[bytes, bytes]]) -> Iterator[Path]:
    """Write a folder of at least two classes, ``data`` in the one given."""
    with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ, TOOLKIT_CACHE=f"{place}/cache"):
        (Path(place) / "data").mkdir()
        write(Path(place) / "data", files, links, enough=True)
        yield Path(place)


def answers(bundle: Path, paths: list[str]) -> dict[str, dict[str, float] | None]:
    """Ask for every picture in three ways, and hold them against each other: probabilities by path and class."""
    status, out, _ = toolkit("predict", bundle, *paths, "--json", "--top-k", 99)
    documents = json.loads(out or json.dumps([{"path": path, "error": "like the others"} for path in paths]))
    assert [row["path"] for row in documents] == paths
    assert status == (2 if all("error" in row for row in documents) else any("error" in row for row in documents))
    labels = (bundle / "assets" / "labels.txt").read_text(encoding="utf-8").splitlines()
    signature, client = opened(bundle)
    before = peak_memory()
    found: dict[str, dict[str, float] | None] = {}
    for row in documents:
        content = Path(row["path"]).read_bytes()
        in_graph = by_graph(signature, content)
        encoded = {"b64": base64.b64encode(content).decode()}
        url = f"/v1/models/{bundle.parent.name}:predict"
        response = client.post(url, json={"instances": [{"image_bytes": encoded}]})
        if "error" in row:
            assert response.status_code == 400, row
            assert "\n" not in response.json()["error"]
            assert in_graph is None, row
            found[row["path"]] = None
            continue
        told = {answer["label"]: answer["probability"] for answer in row["predictions"]}
        by_server = response.json()["predictions"][0]["probabilities"]
        np.testing.assert_allclose([told[label] for label in labels], by_server, atol=1e-6, err_msg=row["path"])
        if in_graph is None:  # TIFF and the like, for which others have to ask with a PNG
            assert as_graph_reads(content) is not content, row["path"]
            in_graph = by_graph(signature, as_graph_reads(content))
        # A pixel whose value is a tie in rounding may differ by one.
        np.testing.assert_allclose(in_graph, by_server, atol=0.01, err_msg=row["path"])
        found[row["path"]] = told
    assert peak_memory() - before < 500
    return found


@functools.lru_cache(maxsize=1)
def opened(bundle: Path) -> tuple[Any, TestClient]:
    """Open a bundle as TensorFlow Serving does, and behind this package's server."""
    return tf.saved_model.load(str(bundle)).signatures["serving_default"], TestClient(create_app(bundle.parent))


def peak_memory() -> int:
    """Most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def by_graph(signature: Any, content: bytes) -> np.ndarray | None:
    try:
        return signature(image_bytes=tf.constant([content]))["probabilities"].numpy()[0]
    except tf.errors.InvalidArgumentError:
        return None


def check_answers(bundle: Path, data: Path) -> dict[str, dict[str, float] | None]:
    """Ask for every file, and hold that those which `check` calls readable have an answer, and its bad ones none."""
    files = {os.path.join(parent, name) for parent, _, names in os.walk(data) for name in names}
    try:
        folder = scan_folder(data)
    except UserError:
        folder = None
    readable = {str(data / path) for path in folder.paths} if folder else set()
    bad = {str(data / path) for path, _ in folder.problems} if folder else set()
    found = answers(bundle, sorted(path for path in files | readable if os.path.isfile(path)))
    assert {path for path in readable if found[path] is None} == set()
    assert {path for path in bad if found.get(path)} == set()
    return found


def check_journeys(data: Path, pretrained: Path) -> None:
    """Have a folder trained on and fine-tuned on, unless `check` said why not."""
    status, out, complaints = toolkit("check", data, "--json")
    report = json.loads(out) if status == 0 else {"warnings": complaints}
    place = data.parent / "models"
    commands = {
        "train": ("--model", "lenet5", "--smoke", "--out", data.parent / "run", "--export", place / "train"),
        "finetune": ("--model", "lenet5_rgb", "--weights", pretrained, "--out", place / "finetune"),
    }
    for name, arguments in commands.items():
        status, out, errors = toolkit(name, data, *arguments, "--skip-bad", "--formats", "savedmodel", "--json")
        if status == 2:
            assert errors[0] in report["warnings"]
            assert not (place / name).exists()
            continue
        assert status == 0
        found = check_answers(Path(json.loads(out)["bundle"]), data)
        assert all(set(answer) == set(report["classes"]) for answer in found.values() if answer)


@settings(max_examples=10, derandomize=True, **OPTIONS)
@given(FILES, LINKS)
def test_any_file_is_answered_alike_by_command_server_and_graph(bundle, files, links):
    with drawn(files, links) as place:
        check_answers(bundle, place / "data")


@settings(max_examples=1, derandomize=True, **OPTIONS)
@given(FILES, LINKS)
def test_any_folder_teaches_a_network_or_is_refused_in_one_line(pretrained, files, links):
    with drawn(files, links) as place:
        check_journeys(place / "data", pretrained)


@pytest.mark.slow
@settings(max_examples=100, **OPTIONS)
@given(FILES, LINKS)
def test_many_files_are_answered_alike_by_command_server_and_graph(bundle, files, links):
    with drawn(files, links) as place:
        check_answers(bundle, place / "data")


@pytest.mark.slow
@settings(max_examples=30, **OPTIONS)
@given(FILES, LINKS)
def test_many_folders_teach_a_network_or_are_refused_in_one_line(pretrained, files, links):
    with drawn(files, links) as place:
        check_journeys(place / "data", pretrained)
