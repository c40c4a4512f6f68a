"""Several devices reach what one device reaches with the same batches."""

from functools import partial

import pytest
from parallel_worker import environment, require_close, start, weights

from toolkit.errors import UserError
from toolkit.machine import computes_bfloat16
from toolkit.training import devices
from toolkit.training.devices import Shard, resolve_policy


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_equal_one(pictures, tmp_path, backend):
    if backend == "jax":
        pytest.importorskip("jax")
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "TWO_DEVICES": "1"}
    one = weights(start(pictures, tmp_path, "one", **environment(backend)), tmp_path, "one")
    both = weights(start(pictures, tmp_path, "two", **environment(backend, **two)), tmp_path, "two")
    assert (one["devices"], both["devices"]) == (1, 2)
    require_close(both, one)


def test_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match=r"batch_size=9 .* multiple of 2, such as 10"):
        Shard(num_devices=2).require_divisible(9)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    def describe(gpu: tuple[int, int] | None, flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse\n")
        monkeypatch.setattr(devices, "computes_bfloat16", partial(computes_bfloat16, tmp_path / "cpuinfo"))
        monkeypatch.setattr(devices, "_gpu_capability", lambda: gpu)

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


def test_auto_on_a_processor_is_float32_but_with_tensorflow(machine, monkeypatch):
    """JAX was not measured to be faster there in bfloat16, and some of its versions answer NaN."""
    machine(None, "amx_bf16")
    monkeypatch.setattr(devices.keras.backend, "backend", lambda: "jax")
    assert resolve_policy("auto") == "float32"


def test_what_was_asked_for_is_kept(machine):
    machine((9, 0), "")
    assert resolve_policy("float32") == "float32"


def test_processor_without_a_description_is_plain(machine, monkeypatch, tmp_path):
    machine(None, "amx_bf16")
    monkeypatch.setattr(devices, "computes_bfloat16", partial(computes_bfloat16, tmp_path / "nowhere"))
    assert resolve_policy("auto") == "float32"
