"""Findings of ``toolkit doctor`` about a machine, whole or not."""

import importlib.metadata
import json

import pytest

import toolkit
from toolkit.api import doctor
from toolkit.cli import commands
from toolkit.cli.parser import build_parser
from toolkit.engines import ENGINES
from toolkit.machine import processor_features

REQUIRED = [
    "numpy>=2.0",
    "nowhere-to-be-had>=1",
    "openvino>=9999; extra == 'openvino'",
    "uvicorn>=0.30; extra == 'serve'",
    "tensorflow[and-cuda]>=2; sys_platform == 'nothing' and extra == 'gpu'",
]


@pytest.fixture
def broken(monkeypatch):
    """A machine that lacks a package, has an old one, and whose LiteRT does not load."""
    requires = importlib.metadata.requires
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRED if name == "toolkit" else requires(name))
    silent = {"engine": "litert", "answers": False, "difference": None, "reason": "no such library"}
    absent = silent | {"engine": "openvino", "reason": "not installed: pip install 'toolkit[openvino]'"}
    monkeypatch.setattr(doctor, "_engines", lambda: ([silent, absent], []))


def test_what_is_missing_comes_with_the_command_that_brings_it(broken):
    found = toolkit.doctor()
    version = importlib.metadata.version("openvino")
    assert [(row["what"], row["command"], row["needed"]) for row in found["missing"]] == [
        ("nowhere-to-be-had>=1", "pip install --upgrade toolkit", True),
        (f"openvino>=9999 (here: {version})", "pip install 'toolkit[openvino]'", False),
        ("engine litert", "pip install --upgrade --force-reinstall toolkit", True),
    ]
    assert not found.healthy
    assert "missing: engine litert (no such library)" in repr(found)
    assert "no such library" in found.report().html


def test_the_command_fails_where_something_needed_is_missing(broken, capsys):
    printed = []
    for words in (["doctor"], ["doctor", "--json"]):
        with pytest.raises(SystemExit) as status:
            commands.doctor(build_parser().parse_args(words))
        assert status.value.code == 1
        printed.append(capsys.readouterr().out)
    assert "MISSING: nowhere-to-be-had>=1, for the package itself\n  pip install --upgrade toolkit" in printed[0]
    assert json.loads(printed[1])["toolkit"] == toolkit.__version__


def test_engines_of_this_machine_answer():
    found = toolkit.doctor()
    assert {row["engine"]: row["answers"] for row in found["engines"]} == dict.fromkeys(ENGINES, True)
    assert {row["name"] for row in found["packages"]} >= {"numpy", "keras", "openvino"}


@pytest.mark.parametrize(
    ("text", "here"),
    [
        ("flags\t\t: fpu avx2 avx512f avx_vnni\n", {"AVX2", "AVX-512", "VNNI"}),
        ("flags\t\t: fpu avx2 amx_tile amx_bf16\n", {"AVX2", "bf16", "AMX"}),
        ("Features\t: asimd asimddp\n", set()),
    ],
)
def test_features_of_processors(tmp_path, text, here):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{text}")
    assert {name for name, is_here in processor_features(tmp_path / "cpuinfo").items() if is_here} == here
