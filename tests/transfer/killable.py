"""What tests run in processes of their own, to kill them or to set them beside each other."""

import os
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np

# The server imports what is slow to import, once; each process is then a fork of it.
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["tensorflow", "sklearn.linear_model", "toolkit.transfer", "killable"])


def fill_and_fit(cache_dir: Path, paths: list[str], labels: list[int], out: Path, pause: float) -> None:
    """Extract features of a seeded network, fit a head, and leave both in ``out`` with the number of views computed."""
    import keras

    from toolkit import create_model, model_info
    from toolkit.transfer import HeadOptions, features, fit_head

    keras.utils.set_random_seed(0)
    model = create_model("lenet5", num_classes=10)
    views_seen = []
    plain = features.view_pixels
    features.view_pixels = lambda *args, **kwargs: views_seen.append(1) or plain(*args, **kwargs)
    found = features.extract_features(
        model,
        paths,
        model_info("lenet5").preprocessing,
        cache_dir=cache_dir,
        progress=lambda done, total: time.sleep(pause),
    ).plain
    y = np.asarray(labels)
    head = fit_head(found[::2], y[::2], found[1::2], y[1::2], num_classes=10, options=HeadOptions("adam", epochs=3))
    kernel, bias = head.layers[0]
    with out.with_suffix(".partial").open("wb") as file:
        np.savez(file, features=found, kernel=kernel, bias=bias, seen=len(views_seen))
    os.replace(out.with_suffix(".partial"), out)


def start(*arguments: object) -> object:
    """``fill_and_fit`` in a process of its own."""
    process = CONTEXT.Process(target=fill_and_fit, args=arguments)
    process.start()
    return process
