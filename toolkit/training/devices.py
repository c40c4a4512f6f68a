"""Training on all devices of this host, or of several: the same batch, divided."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.training.hosts import Hosts

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


def connect(hosts: Hosts) -> None:
    """Meet the other hosts; before anything else touches a device.

    Raises:
        UserError: the backend is not JAX.
    """
    if keras.backend.backend() != "jax":
        raise UserError(f"several hosts train together on JAX only, and KERAS_BACKEND is {keras.backend.backend()}")
    log.info("host %d of %d, meeting at %s", hosts.host_id, hosts.num_hosts, hosts.coordinator)
    keras.distribution.initialize(hosts.coordinator, hosts.num_hosts, hosts.host_id)


def disconnect() -> None:
    """Wait until the other hosts have come as far, and part."""
    import jax

    jax.distributed.shutdown()


@contextmanager
def all_devices() -> Iterator[Shard]:
    """Whatever network is built inside is trained on all devices: GPUs where there are any, else logical CPUs.

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


def require_same_position(position: Any) -> None:
    """Raise unless all hosts found the same checkpoint: they do where ``--out`` is one directory for all of them."""
    from jax.experimental import multihost_utils

    try:
        multihost_utils.assert_equal([position.epoch, position.step])
    except AssertionError:
        raise UserError(
            f"this host found a checkpoint of epoch {position.epoch}, step {position.step}, and another host a "
            "different one: --out must be the same shared directory on all hosts"
        ) from None


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
