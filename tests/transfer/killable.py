"""Work that tests do in processes of their own, to kill them or to set them beside each other."""

import os
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np

# The server imports what is slow to import, once; each process is then a fork of it.
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("tensorflow", "openvino", "onnx", "sklearn.linear_model", "scipy.optimize"),
        *("toolkit.transfer", "toolkit.factory", "killable"),
    ]
)

VIEWS = 2
NUM_CANDIDATES = 20  # with that many views, or a few less


def finetune_and_save(
    cache_dir: Path, paths: list[str], labels: list[int], out: Path, done: object = None, pause: float = 0.0
) -> None:
    """Fine-tune a seeded network, and leave what came of it in ``out``.

    Args:
        cache_dir: of features.
        paths: of the pictures to train on.
        labels: of the pictures.
        out: an .npz file of ``train`` features, ``kernel`` and ``bias`` of the network's classifier, and
            ``seen``, the number of views computed.
        done: a shared number that rises from 0 to 1 with the features extracted, and to 2 with the candidates compared.
        pause: seconds to rest after each batch of features and before each candidate.
    """
    import keras

    from toolkit import create_model, model_info
    from toolkit.data.feed.split import Split, Subset
    from toolkit.transfer import AugmentedViews, Extraction, FinetuneOptions, features, finetune
    from toolkit.transfer.heads import selection

    done = done or CONTEXT.Value("d")
    train = Subset(tuple(paths), tuple(labels))
    seen = []

    def store(caches, found, put=features.put_together):
        put(caches, found)
        time.sleep(pause)
        done.value = len(caches[-1]) / (VIEWS * len(train))

    def see(*arguments, pixels=AugmentedViews.pixels):
        seen.append(1)
        return pixels(*arguments)

    def judge(*arguments, best=selection._best_strength):
        done.value = max(1.0, done.value) + 1 / NUM_CANDIDATES
        time.sleep(pause)
        return best(*arguments)

    features.put_together, AugmentedViews.pixels, selection._best_strength = store, see, judge
    keras.utils.set_random_seed(0)
    model = create_model("lenet5", num_classes=10)
    options = FinetuneOptions(
        unfreeze="none",
        views=AugmentedViews(VIEWS),
        extraction=Extraction(batch_size=2),
    )
    result = finetune(
        model,
        Split(train, Subset((), ()), Subset((), ())),
        model_info("lenet5").preprocessing,
        cache_dir=cache_dir,
        options=options,
    )
    kernel, bias = result.model.layers[-1].get_weights()
    with out.with_suffix(".partial").open("wb") as file:
        np.savez(file, train=result.features, kernel=kernel, bias=bias, seen=len(seen))
    os.replace(out.with_suffix(".partial"), out)


def start(*arguments: object) -> object:
    """``finetune_and_save`` in a process of its own."""
    process = CONTEXT.Process(target=finetune_and_save, args=arguments)
    process.start()
    return process
