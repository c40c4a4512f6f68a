"""``make demo`` does what is missing and says what it shows."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import toolkit

MAKEFILE = Path(toolkit.__file__).parents[1] / "Makefile"
# Stands in for the command: notes how it was called, and leaves what the real one leaves.
COMMAND = """#!/bin/sh
echo "${PORT:-none} $*" >> calls
case $1 in
  samples) mkdir -p "$3" ;;
  train) cd saved_models/digits/1/assets.extra && touch manifest.json ;;
  benchmark) [ -e broken ] && exit 2; echo "the table of engines" ;;
  bundles) echo "the table of answers of $3" ;;
  predict) echo "the table of photographs" ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """Run make in a project whose packages are installed, and give its output and the commands that it ran."""
    if shutil.which("make") is None:
        pytest.skip("no make here")
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / "saved_models/digits/1/assets.extra").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", ".venv/bin/python", ".venv/installed-all"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    command = tmp_path / ".venv/bin/toolkit"
    command.write_text(COMMAND)
    command.chmod(0o755)

    def run(*arguments: str, code: int = 0) -> tuple[str, list[str]]:
        (tmp_path / "calls").write_text("")
        environment = {k: v for k, v in os.environ.items() if k not in ("PORT", "MAKEFLAGS")}
        done = subprocess.run(["make", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout, (tmp_path / "calls").read_text().splitlines()

    return run


def test_a_second_demo_prints_the_results_of_the_first_and_opens_the_page(make):
    first, calls = make("demo")
    commands = ["bundles", "samples", "predict", "samples", "train", "benchmark", "bundles", "demo"]
    assert [call.split()[1] for call in calls] == commands
    second, calls = make("demo", "PORT=7999")
    assert calls == ["7999 demo saved_models"]
    for output in (first, second):
        for table in (
            "engines",
            "answers of saved_models/resnet20-cifar10",
            "photographs",
            "answers of saved_models/digits",
        ):
            assert output.count(f"the table of {table}\n") == 1
    # Every heading says what follows; the line after it, how to see the same without make.
    lines = first.splitlines()
    after = [lines[number + 1].split()[:2] for number, line in enumerate(lines) if line.startswith("== ")]
    told = ["samples", "bundles", "predict", "samples", "train", "benchmark", "bundles", "demo"]
    assert after == [[".venv/bin/toolkit", name] for name in told]


def test_a_step_that_failed_is_missing_still(make, tmp_path):
    (tmp_path / "broken").touch()
    make("digits", code=2)
    (tmp_path / "broken").unlink()
    output, calls = make("digits")
    assert [call.split()[1] for call in calls] == ["benchmark", "bundles"]
    assert "the table of engines" in output


def test_clean_leaves_the_bundles_that_come_with_the_project(make, tmp_path):
    shipped = tmp_path / "saved_models/resnet20-cifar10/1/saved_model.pb"
    shipped.parent.mkdir(parents=True)
    shipped.touch()
    for name in ("data/photographs", "runs/photographs", "data/mine", "runs/mine"):
        (tmp_path / name).mkdir(parents=True)
    make("clean")
    assert shipped.exists()
    assert not (tmp_path / "saved_models/digits").exists()
    assert [path.name for part in ("data", "runs") for path in (tmp_path / part).iterdir()] == ["mine", "mine"]
