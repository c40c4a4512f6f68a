import pytest

from toolkit.training import precision
from toolkit.training.precision import resolve_policy


@pytest.fixture
def machine(monkeypatch, tmp_path):
    def describe(gpu: tuple[int, int] | None, flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse\n")
        monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(precision, "_gpu_capability", lambda: gpu)

    return describe


@pytest.mark.parametrize(
    ("gpu", "flags", "policy"),
    [
        ((9, 0), "", "mixed_bfloat16"),
        ((8, 0), "", "mixed_bfloat16"),
        ((7, 5), "amx_bf16", "mixed_float16"),
        (None, "amx_tile amx_bf16", "mixed_bfloat16"),
        (None, "avx512_bf16", "mixed_bfloat16"),
        (None, "avx512f", "float32"),
    ],
)
def test_auto_follows_the_hardware(machine, gpu, flags, policy):
    machine(gpu, flags)
    assert resolve_policy("auto") == policy


def test_what_was_asked_for_is_kept(machine):
    machine((9, 0), "")
    assert resolve_policy("float32") == "float32"


def test_processor_without_a_description_is_plain(machine, monkeypatch, tmp_path):
    machine(None, "amx_bf16")
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "nowhere")
    assert resolve_policy("auto") == "float32"
