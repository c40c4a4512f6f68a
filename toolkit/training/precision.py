"""Which numbers a machine trains fastest in without losing accuracy."""

from pathlib import Path

from toolkit.lazy import keras
from toolkit.training.config import DtypePolicy

_CPU_FLAGS = ("amx_bf16", "avx512_bf16")
_CPU_INFO = Path("/proc/cpuinfo")


def resolve_policy(policy: DtypePolicy) -> DtypePolicy:
    """The Keras dtype policy that ``auto`` stands for on this machine; any other is itself.

    ``mixed_bfloat16`` where the hardware computes in bfloat16 (a GPU of compute capability 8 or more, a TPU, an x86
    processor with AMX or AVX-512 BF16), ``mixed_float16``, with loss scaling, on older GPUs, else ``float32``.
    """
    if policy != "auto":
        return policy
    capability = _gpu_capability()
    if capability is None:
        return "mixed_bfloat16" if _has_tpu() or _cpu_has_bfloat16() else "float32"
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16"


def _gpu_capability() -> tuple[int, int] | None:
    """The least of all GPUs, ``(major, minor)``; None where there are none."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
        return min((d.get("compute_capability", (0, 0)) for d in details), default=None)
    if keras.backend.backend() == "jax":
        import jax

        gpus = [device for device in jax.devices() if device.platform == "gpu"]
        return min((_parsed(getattr(gpu, "compute_capability", "0.0")) for gpu in gpus), default=None)
    return None


def _parsed(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)


def _has_tpu() -> bool:
    return any(name.startswith("tpu") for name in keras.distribution.list_devices())


def _cpu_has_bfloat16() -> bool:
    if not _CPU_INFO.exists():
        return False
    flags = next((line for line in _CPU_INFO.read_text().splitlines() if line.startswith("flags")), "")
    return not set(_CPU_FLAGS).isdisjoint(flags.split())
