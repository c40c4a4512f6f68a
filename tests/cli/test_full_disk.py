"""Disks that are full or read-only: one line names the place and the option, and nothing is left half-written."""

import shutil
from pathlib import Path

import pytest
from forked import run_command as run

LIMIT = 20_000  # bytes that a file may get to: more than any text, less than a network
REASON = "cannot be written (File too large)"


@pytest.fixture(scope="module")
def data(digits, tmp_path_factory) -> Path:
    """Eight pictures each of two digits."""
    root = tmp_path_factory.mktemp("data")
    for name in "01":
        (root / name).mkdir()
        for path in sorted((digits / name).iterdir())[:8]:
            shutil.copy(path, root / name)
    return root


@pytest.fixture
def place(bundle, tmp_path) -> Path:
    """A folder with a bundle in it."""
    shutil.copytree(bundle, tmp_path / "digits" / "1")
    return tmp_path


def refused(place: Path, *arguments: object, **options) -> str:
    """Run a command that must not leave anything behind, and give the one line that it says."""
    before = {path for path in place.rglob("*") if path.name != "cache"}
    environment = {"TOOLKIT_CACHE": str(place / "cache")}
    result = run(*arguments, cwd=place, **({"environment": environment, "full_at": LIMIT} | options))
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("toolkit: error: ")]
    assert len(errors) == 1, result.stderr
    files = {path for path in place.rglob("*") if path.is_file() and place / "cache" not in path.parents}
    assert files <= before
    return errors[0].removeprefix("toolkit: error: ")


def test_finetune(place, data, tmp_path_factory):
    from toolkit.factory import create_model, save_weights

    weights = tmp_path_factory.mktemp("weights") / "lenet5.safetensors"
    save_weights(create_model("lenet5", num_classes=3), weights)
    arguments = ("finetune", data, "--model", "lenet5", "--weights", weights, "--out")
    assert refused(place, *arguments, "m/x", full_at=150_000) == f"m/x: {REASON}; name another place by --out"
    line = refused(place, *arguments, "m/x", "--cache", "cache", full_at=2000)
    assert line.startswith(f"{place}/cache/features-2: the feature cache cannot be written (")
    assert line.endswith("; name another place by --cache")


@pytest.mark.parametrize("method", ["float16", pytest.param("prune", marks=pytest.mark.slow)])
def test_compress(place, data, method):
    line = refused(place, "compress", "digits", "--method", method, "--data", data_of_bundle(place, data), "--force")
    # It is written beside the version that it is made of, or for pruning first among temporary files.
    assert line.startswith("digits: cannot be") if method == "float16" else REASON in line


def data_of_bundle(place: Path, data: Path) -> Path:
    """All ten classes of the bundle, of which two have pictures enough."""
    whole = place / "cache" / "data"
    for name in "0123456789":
        shutil.copytree(data / str(int(name) % 2), whole / name)
    return whole


def test_files_of_one_command_each(place, data):
    commands = {
        "--onnx": ("export", "digits", "--onnx", "x.onnx"),
        "--draw": ("models", "lenet5", "--draw", "x.png"),
        "--augment-preview": ("check", data, "--augment-preview", "x.png"),
    }
    for option, arguments in commands.items():
        assert refused(place, *arguments) == f"{arguments[-1]}: {REASON}; name another place by {option}"
    assert refused(place, "check", data, "--quarantine", "/dev/null/q.txt") == (
        "/dev/null/q.txt: cannot be written (Not a directory); name another place by --quarantine"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("form", [(), ("--csv",), ("--json",)])
def test_answers_that_cannot_be_written(place, data, form):
    line = refused(place, "predict", "digits", data / "0", *form, stdout="/dev/full")
    assert line == "standard output cannot be written (No space left on device)"


@pytest.mark.parametrize("command", [("predict", "digits", "DATA"), ("bundles", "examples", "digits")])
def test_no_home_is_no_hindrance(place, data, command):
    nowhere = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "", "TOOLKIT_CACHE": ""}
    result = run(*(data if word == "DATA" else word for word in command), cwd=place, environment=nowhere)
    assert (result.returncode, result.stderr) == (0, "")


def test_finetune_with_no_home_says_what_it_needs(place, data):
    nowhere = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "", "TOOLKIT_CACHE": ""}
    arguments = ("finetune", data, "--model", "lenet5", "--out", "m/x")
    line = refused(place, *arguments, environment=nowhere)
    assert "/dev/null" in line
    assert line.endswith("; name another place by --cache")
