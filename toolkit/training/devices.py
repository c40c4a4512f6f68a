"""The devices of this host, or of several: how a batch is divided among them, and the precision they are fast in."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.machine import computes_bfloat16
from toolkit.training.config import DtypePolicy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """This process's part of every batch: a contiguous ``1 / count`` of it, the part numbered ``index``.

    Attributes:
        index: from 0.
        count: of processes.
        num_devices: of all processes together; a batch is cut to a multiple of it.
    """

    index: int = 0
    count: int = 1
    num_devices: int = 1

    def require_divisible(self, batch_size: int) -> None:
        """Raise unless every device gets as many pictures of a batch as the others."""
        if batch_size % self.num_devices:
            raise UserError(
                f"run.batch_size={batch_size} is for all {self.num_devices} devices together; make it a multiple of "
                f"{self.num_devices}, such as {-(-batch_size // self.num_devices) * self.num_devices}"
            )


@contextmanager
def all_devices() -> Iterator[Shard]:
    """Train the network that is built inside on all devices: GPUs where there are any, else logical CPUs.

    On TensorFlow through ``MirroredStrategy``, on JAX through ``DataParallel``, where the processes that ``connect``
    joined count as well. With one device, nothing changes.
    """
    match keras.backend.backend():
        case "tensorflow":
            with _mirrored() as shard:
                yield shard
        case "jax":
            with _data_parallel() as shard:
                yield shard
        case _:
            yield Shard()


@contextmanager
def shared_batch_statistics(model: "keras.Model", shard: Shard) -> Iterator[None]:
    """Have batch normalisation see the whole batch, not a device's part of it, as one device would.

    JAX computes on the whole batch anyway.
    """
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if shard.num_devices == 1 or keras.backend.backend() != "tensorflow":
        yield
        return
    before = [layer.synchronized for layer in layers]
    for layer in layers:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer, synchronized in zip(layers, before, strict=True):
            layer.synchronized = synchronized


@contextmanager
def _mirrored() -> Iterator[Shard]:
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        yield Shard()
        return
    log.info("training on %d devices", len(devices))
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    with strategy.scope():
        yield Shard(num_devices=len(devices))


@contextmanager
def _data_parallel() -> Iterator[Shard]:
    import jax

    devices = keras.distribution.list_devices()
    if len(devices) == 1:
        yield Shard()
        return
    log.info("training on %d devices of %d hosts", len(devices), jax.process_count())
    # The batches are divided before they get here, so that no host decodes another's pictures.
    with keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False).scope():
        yield Shard(jax.process_index(), jax.process_count(), len(devices))


def resolve_policy(policy: DtypePolicy) -> DtypePolicy:
    """Return the Keras dtype policy that ``auto`` stands for on this machine; any other is itself.

    ``mixed_bfloat16`` where the hardware computes in bfloat16 (a GPU of compute capability 8 or more, a TPU, with
    TensorFlow an x86 processor with AMX or AVX-512 BF16), ``mixed_float16``, with loss scaling, on older GPUs, else
    ``float32``.

    On processors that is where it was measured to be faster: with AVX-512 BF16 alone, a step of ResNet-20 or ResNet-50
    takes about two thirds of float32's processor time (``benchmarks/results/training.json``). JAX 0.11.2 answers NaN
    there for a ResNet in bfloat16, and 0.10.2 does not.
    """
    if policy != "auto":
        return policy
    capability = _gpu_capability()
    if capability is None:
        has_tpu = any(name.startswith("tpu") for name in keras.distribution.list_devices())
        has_fast_cpu = keras.backend.backend() == "tensorflow" and computes_bfloat16()
        return "mixed_bfloat16" if has_tpu or has_fast_cpu else "float32"
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16"


def _gpu_capability() -> tuple[int, ...] | None:
    """Return the least compute capability of all GPUs, ``(major, minor)``; None where there are none."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
        return min((d.get("compute_capability", (0, 0)) for d in details), default=None)
    if keras.backend.backend() == "jax":
        import jax

        gpus = [device for device in jax.devices() if device.platform == "gpu"]
        capabilities = [getattr(gpu, "compute_capability", "0.0").split(".") for gpu in gpus]
        return min((tuple(map(int, parts)) for parts in capabilities), default=None)
    return None
