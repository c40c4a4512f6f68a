"""Every shell line of the README and the pages is understood, and does what it says, on a photo of two megabytes."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from forked import run_command
from PIL import Image

from toolkit.catalogue import model_info
from toolkit.cli.names import NAMES
from toolkit.cli.parser import build_parser
from toolkit.explain import METHODS as EXPLANATIONS
from toolkit.factory import locate_weights
from toolkit.training.config import TrainConfig, apply_overrides
from toolkit.training.recipes import recipe
from toolkit.training.search.space import parse_search

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8501"

#: What a test does in a reader's place, where he would wait for hours or for 100 MB: in the line, instead, why.
SHORTER = (
    (r"^toolkit train my_pictures", "toolkit train my_pictures --set run.epochs=1", "60 epochs and more"),
    (r"run\.epochs=(90|200)", "run.epochs=2", "the same"),
    (r"run\.epochs=40", "run.epochs=2", "the same"),
    (r"--trials (20|8)", "--trials 2 --set run.epochs=1", "twenty of them"),
    (r"--epochs 5", "--epochs 1 --force", "minutes; one epoch of a few pictures does not mend a pruned network"),
    (r"--method qat", "--method qat --epochs 1", "the same"),
    (r"--model resnet50", "--model resnet20 --weights runs/mine", "100 MB of published weights"),
    (r"--weights imagenet-keras ", "", "the same"),
    (r"--unfreeze stage4", "--unfreeze stage3", "the last stage of resnet20"),
)
#: Lines that are not run here, and why.
ELSEWHERE = {
    "make ": "builds an environment of gigabytes; see test_make_knows_its_targets",
    "pip install": "the same",
    "source ": "the environment that these tests run in",
    "toolkit train my_pictures --model resnet20 --out runs/hosts": "needs another host; tests/training/test_hosts.py",
    "toolkit finetune my_pictures --model resnet50 --out saved_models/mine --cluster": "a cluster; tests/transfer",
    "toolkit predict  saved_models/mine my_pictures/test --cluster": "the same; tests/inference",
    "toolkit serve": "runs beside the line after it",
    "toolkit explain saved_models/mine photo.jpg --class": "its classes have other names; cli/test_explain_command.py",
    "toolkit explain googlenet": "published weights; the same",
    "toolkit demo": "serves until it is stopped; tests/demo",
    "toolkit import": "somebody else's network; tests/api",
}


def shell_lines(document: str) -> list[str]:
    """The lines of all blocks that name no language, those that go on joined, comments taken off."""
    content = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", content, re.DOTALL | re.MULTILINE)
    shell = "".join(block for language, block in blocks if not language)
    text = re.sub(r"\\\n\s*", "", re.sub(r"\|\n\s*", "| ", shell))
    return [re.sub(r"\s+#\s.*", "", line).strip() for line in text.splitlines()]


#: Pages that are read one after another, and worked through in one folder.
JOURNEYS = (
    ("README.md",),
    ("docs/first.md", "docs/notes.md"),
    tuple(
        f"docs/{page}.md"
        for page in (
            *("data", "training", "finetuning", "explaining", "teaching"),
            *("compressing", "serving", "machines", "scripting"),
        )
    ),
)
#: Pages about what is not here: somebody else's networks, a hub.
ABOUT_OTHERS = ("docs/elsewhere.md", "docs/hub.md")
DOCUMENTS = (*(document for journey in JOURNEYS for document in journey), *ABOUT_OTHERS)
LINES = [line for document in DOCUMENTS for line in shell_lines(document)]
TOOLKIT_LINES = [line for line in LINES if line.startswith("toolkit ")]


def write_photo(path: Path) -> Path:
    """A photo as a telephone's: a sky, and grain that no JPEG can shrink."""
    height, width = 1500, 2000
    sky = np.linspace(60, 200, height)[:, None, None] + np.linspace(0, 40, width)[None, :, None]
    grain = np.random.default_rng(0).normal(0, 30, (height, width, 3))
    Image.fromarray(np.clip(sky + grain, 0, 255).astype(np.uint8)).save(path, quality=93)
    assert path.stat().st_size > 2_000_000
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    return write_photo(tmp_path_factory.mktemp("photo") / "photo.jpg")


def test_lines_are_found():
    assert len(TOOLKIT_LINES) >= 30
    assert {line.split()[0] for line in LINES} == {"toolkit", "make", "pip", "source", "echo", "curl"}
    # What is said to be shortened or left out is there.
    for pattern, _, _ in SHORTER:
        assert any(re.search(pattern, line) for line in LINES), pattern
    for start in ELSEWHERE:
        assert any(line.startswith(start) for line in LINES), start


@pytest.mark.parametrize("line", TOOLKIT_LINES)
def test_every_argument_means_something(line):
    words = shlex.split(line)
    arguments = build_parser().parse_args(words[1:])
    assert words[1] in arguments.handler  # `bundles` is manage_bundles
    given = vars(arguments)
    if given.get("model"):
        info = model_info(arguments.model)
        weights = given.get("weights")
        if weights and "/" not in weights and not Path(weights).suffix:
            locate_weights(info, weights)
        if "unfreeze" in given:
            assert arguments.unfreeze in ("auto", "none", *info.stages)
    config = recipe(arguments.recipe) if given.get("recipe") else TrainConfig()
    apply_overrides(config, given.get("set") or [])
    if given.get("search"):
        parse_search(arguments.search, config, arguments.set)
    if "method" in given:
        assert arguments.method in (("auto", *EXPLANATIONS) if words[1] == "explain" else NAMES["methods"])


def test_make_knows_its_targets():
    for line in LINES:
        if line.startswith("make "):
            subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, check=True, capture_output=True)


def test_what_is_activated_is_what_make_installs():
    [line] = [line for line in LINES if line.startswith("source ")]
    venv = re.search(r"^VENV \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line == f"source {venv[1]}/bin/activate"


def curl_at_server(home: Path, lines: list[str]) -> list[dict]:
    """Send the README's requests to the server of the line before, and give the answers."""
    serve = next(line for line in lines if line.startswith("toolkit serve"))
    requests = [line for line in lines if line.startswith(("curl", "echo"))]
    log = home / "server.log"
    command = [sys.executable, "-m", "toolkit", *shlex.split(serve)[1:], "--port", "0"]
    with log.open("w") as stderr:
        server = subprocess.Popen(command, cwd=home, stderr=stderr)
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answers = []
        for request in requests:
            line = request.replace("curl ", "curl -sS --retry 60 --retry-all-errors --retry-delay 1 --fail ")
            assert ADDRESS in line
            line = line.replace(ADDRESS, found[0])
            answer = subprocess.run(["bash", "-c", line], cwd=home, capture_output=True, text=True, timeout=120)
            assert answer.returncode == 0, answer.stderr
            answers.append(json.loads(answer.stdout))
        return answers
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def test_curl_takes_a_photo_of_two_megabytes(bundle, photo, tmp_path):
    from toolkit.inference import Predictor

    shutil.copytree(bundle.parent, tmp_path / "saved_models" / "digits")
    shutil.copy(photo, tmp_path)
    plain, protocol = curl_at_server(tmp_path, shell_lines("README.md"))
    predictor = Predictor.load(bundle, "litert")
    expected = predictor.probabilities([photo])[0]
    np.testing.assert_allclose(protocol["predictions"][0]["probabilities"], expected, atol=1e-3)
    assert plain["predictions"][0]["top"][0]["label"] == predictor.labels[expected.argmax()]


@pytest.fixture
def home(bundle, digits, photo, tmp_path) -> Path:
    """A reader's folder: his pictures, a photo, and what `make demo` left."""
    for name in "012":
        for index, path in enumerate(sorted((digits / name).iterdir())[:30]):
            folder = tmp_path / "my_pictures" / ("train" if index < 20 else "val" if index < 25 else "test") / name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    pictures = sorted((tmp_path / "my_pictures").rglob("*.png"))
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in pictures]
    (tmp_path / "my_pictures.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    shutil.copy(photo, tmp_path)
    shutil.copytree(bundle.parent, tmp_path / "saved_models" / "digits")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey[0])
def test_every_line_runs_one_after_another(home, journey):
    for document, line in [(page, line) for page in journey for line in shell_lines(page)]:
        if any(line.startswith(start) for start in ELSEWHERE):
            continue
        if line.startswith(("curl", "echo")):
            assert all(answer["predictions"] for answer in curl_at_server(home, shell_lines(document)))
            continue
        if "saved_models/other" in line and not (home / "saved_models" / "other").exists():
            own = ["--out", "runs/other", "--export", "saved_models/other"]
            run_command("train", "my_pictures", "--model", "lenet5_rgb", "--smoke", *own, cwd=home)
        shorter = line
        for pattern, instead, _ in SHORTER:
            shorter = re.sub(pattern, instead, shorter)
        environment = {"TOOLKIT_CACHE": str(home / "cache"), "TOOLKIT_OFFLINE": "1"}
        result = run_command(*shlex.split(shorter)[1:], cwd=home, environment=environment)
        assert result.returncode == 0, f"{shorter}\n{result.stderr}"
        for option in ("out", "onnx", "draw", "report", "export"):
            written = re.search(rf"--{option} (\S+)", line)
            assert not written or (home / written[1]).exists(), line
    assert os.listdir(home / "runs")
