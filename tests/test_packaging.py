"""The wheel, the serving image, the citation and the public CI: what can be told of them without building an image."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import toolkit
from toolkit.bundle import SHIPPED

ROOT = Path(__file__).parents[1]
SERVING = ROOT / "apps" / "serving"

# A server with each engine that needs no TensorFlow, where packages that the image lacks are not there.
SERVED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2:]:
            raise ModuleNotFoundError(f"no module {name}", name=name)

sys.meta_path.insert(0, Absent())
import toolkit.serving.grpc, toolkit.serving.server
from toolkit import Predictor
from toolkit.cli.parser import build_parser
build_parser().parse_args(["serve", "/models"])
for engine in ("litert", "openvino"):
    Predictor.load(sys.argv[1], engine, shared=True)
"""

# One picture to the server and to the demo's classifier with an engine, and what was imported for the answers.
ANSWERED = """
import base64, pathlib, sys
from starlette.testclient import TestClient
from toolkit.demo.classifier import Classifier
from toolkit.serving import create_app

directory, file, label, *engines = sys.argv[1:]
picture = pathlib.Path(file).read_bytes()
body = {"instances": [{"b64": base64.b64encode(picture).decode()}]}
for engine in engines:
    with TestClient(create_app(directory, engine)) as client:
        answer = client.post("/v1/models/digits:predict", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"][0]["top_labels"][0] == label, answer.text
        answer = client.post("/predict/digits", files={"file": picture})
        assert answer.status_code == 200, answer.text
    shown = Classifier(directory, engine=engine)
    [bundle] = shown.bundles()
    answer = shown.classify(picture, bundle, shown.preferred_engine(bundle))
    assert answer.engine == engine, answer.engine
    assert answer.predictions[0].label == label, answer.predictions
print(*sys.modules)
"""


def pinned_requirements() -> list[str]:
    lines = (SERVING / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def closure(names: list[str]) -> set[str]:
    """Distributions that are installed with these, by their names in one spelling."""
    found: set[str] = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                names.append(requirement.name)
    return found


def test_image_has_what_serving_needs_and_no_tensorflow(bundle):
    installed = closure(pinned_requirements())
    assert "tensorflow" not in installed
    homes = metadata.packages_distributions()
    own = {name: {re.sub(r"[-_.]+", "-", home).lower() for home in found} for name, found in homes.items()}
    absent = [name for name, found in own.items() if not found & (installed | {"toolkit"})]
    assert {"tensorflow", "keras", "huggingface_hub"} <= set(absent)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SERVED, str(bundle), *absent]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_server_and_demo_answer_without_tensorflow(bundle, jpegs, tmp_path):
    from toolkit import Predictor

    picture = tmp_path / "digit.jpg"
    picture.write_bytes(jpegs[0])
    label = Predictor.load(bundle, "litert").predict([jpegs[0]])[0][0].label
    directory, engines = bundle.parent.parent, ("litert", "litert-int8", "openvino")
    command = [sys.executable, "-c", ANSWERED, str(directory), str(picture), label, *engines]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()).isdisjoint({"tensorflow", "keras"})


def let_into_the_image() -> set[str]:
    return {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}


def test_image_is_built_from_what_is_let_into_it(tmp_path, monkeypatch):
    from hatchling.build import build_wheel

    for name in let_into_the_image():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert (tmp_path / build_wheel(str(tmp_path))).is_file()


def test_image_runs_without_rights_and_is_asked_if_it_is_alive():
    dockerfile = (SERVING / "Dockerfile").read_text()
    assert re.search(r"^USER [1-9]\d+$", dockerfile, re.MULTILINE)  # a number: Kubernetes cannot look names up
    assert "/healthz" in dockerfile[dockerfile.index("HEALTHCHECK") :]
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", dockerfile, re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    assert {source for line in copied for source in line.split()} == let_into_the_image()


def test_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == toolkit.__version__
    assert citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_public_ci_does_what_ci_does_with_pinned_actions():
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    uses = re.findall(r"uses: (.*)", text)
    assert uses
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in uses)
    runs = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    parts = [run.removeprefix(".ci/run ") for run in runs]
    named = workflow["jobs"]["test"]["strategy"]["matrix"]["part"] + [part for part in parts if "{" not in part]
    known = re.search(r"^    (test \|.*)\) \"run_", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert known
    assert named == known[1].split(" | ")
    done = subprocess.run([ROOT / ".ci/run", "nothing"], capture_output=True, text=True)
    assert (done.returncode, "parts are test, lint, docs, wheel, image" in done.stderr) == (2, True)


@pytest.mark.slow
def test_wheel_is_the_same_bytes_whenever_it_is_built(tmp_path, monkeypatch):
    """And holds the package, its licence and its command, and nothing else of the checkout."""
    from hatchling.build import build_wheel

    monkeypatch.chdir(ROOT)
    wheels = []
    for epoch in ("1700000000", "1700000000", "1800000000"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        directory = tmp_path / str(len(wheels))
        directory.mkdir()
        wheels.append(directory / build_wheel(str(directory)))
    first, second, later = (wheel.read_bytes() for wheel in wheels)
    assert first == second != later
    with zipfile.ZipFile(wheels[0]) as archive:
        names = archive.namelist()
        assert {name.split("/")[0] for name in names} == {"toolkit", f"toolkit-{toolkit.__version__}.dist-info"}
        [points] = [name for name in names if name.endswith("entry_points.txt")]
        assert "toolkit = toolkit.cli:main" in archive.read(points).decode()
    assert not [name for name in names if "__pycache__" in name]
    assert {f"toolkit/saved_models/{name}/1/saved_model.pb" for name in SHIPPED} <= set(names)
