"""What the frozen part of a network answers, computed once per picture."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np

from toolkit.data.arrays import load_pixels
from toolkit.data.decode import normalize
from toolkit.engines.convert import feature_tensor, weights_digest
from toolkit.spec import Preprocessing
from toolkit.transfer.cache import FeatureCache, feature_context


def extract_features(
    model: keras.Model,
    paths: Sequence[str | Path],
    preprocessing: Preprocessing,
    *,
    cache_dir: str | Path,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """The input of the network's classifier for every picture, from the cache where it is there.

    Missing features are computed in batches, each stored as soon as it is done, while the next one's pictures are
    decoded.

    Args:
        model: a classifier; everything before its last layer is the frozen part.
        paths: picture files.
        preprocessing: what the network was trained with.
        cache_dir: see ``FeatureCache``.
        batch_size: pictures per forward pass.
        progress: called with (done, total) over the missing ones.

    Returns:
        float16 of shape (len(paths), features).
    """
    features = feature_tensor(model)
    backbone = keras.Model(model.inputs, features)
    cut = backbone.layers[-1].name
    cache = FeatureCache(cache_dir, feature_context(weights_digest(backbone), cut, preprocessing))
    try:
        with ThreadPoolExecutor() as pool:
            keys = list(pool.map(lambda path: cache.key(Path(path).read_bytes()), paths))
        found = cache.get(keys)
        missing = {key: path for key, path in zip(keys, paths, strict=True) if key not in found}
        num_done = 0
        for batch in _compute(backbone, missing, preprocessing, batch_size):
            cache.put(batch)
            found |= {key: np.asarray(value, np.float16) for key, value in batch.items()}
            num_done += len(batch)
            if progress:
                progress(num_done, len(missing))
        return np.stack([found[key] for key in keys])
    finally:
        cache.close()


def _compute(backbone: keras.Model, missing: dict[bytes, str | Path], preprocessing: Preprocessing, batch_size: int):
    forward = _compiled(backbone)
    keys, paths = list(missing), list(missing.values())
    starts = range(0, len(keys), batch_size)

    def load(start: int) -> np.ndarray:
        return normalize(load_pixels(paths[start : start + batch_size], preprocessing), preprocessing)

    with ThreadPoolExecutor(max_workers=1) as ahead:
        upcoming = ahead.submit(load, 0) if keys else None
        for start in starts:
            assert upcoming is not None
            inputs = upcoming.result()
            upcoming = ahead.submit(load, start + batch_size) if start + batch_size < len(keys) else None
            yield dict(zip(keys[start : start + batch_size], forward(inputs), strict=True))


def _compiled(backbone: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    if keras.backend.backend() != "tensorflow":
        return lambda inputs: keras.ops.convert_to_numpy(backbone.predict_on_batch(inputs))
    import tensorflow as tf

    spec = tf.TensorSpec([None, *backbone.input_shape[1:]], tf.float32)
    function = tf.function(lambda inputs: backbone(inputs, training=False), input_signature=[spec])
    return lambda inputs: function(inputs).numpy()
