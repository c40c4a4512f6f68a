"""What tests run in processes of their own, to kill them or to set them beside each other."""

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

EPOCHS = 3
VIEWS = 2


def finetune_and_save(
    cache_dir: Path, paths: list[str], labels: list[int], out: Path, done: object = None, pause: float = 0.0
) -> None:
    """Fine-tune a seeded network, and leave what came of it in ``out``.

    Args:
        cache_dir: of features.
        paths: half of them to train on, the other half for validation.
        labels: of the pictures.
        out: an .npz file of ``train`` and ``val`` features, ``kernel`` and ``bias`` of the network's classifier, and
            ``seen``, the number of views computed.
        done: a shared number that rises from 0 to 1 while features are extracted, and to 2 while the head trains.
        pause: seconds to rest after each batch of features and before each batch of the head's training.
    """
    import keras

    from toolkit import create_model, model_info
    from toolkit.data.feed.split import Split, Subset
    from toolkit.transfer import AugmentedViews, Extraction, FinetuneOptions, HeadOptions, features, finetune, fitting

    done = done or CONTEXT.Value("d")
    train, val = (Subset(tuple(paths[i::2]), tuple(labels[i::2])) for i in range(2))
    num_views = VIEWS * len(train) + len(val)
    num_steps = EPOCHS * sum(-(-count * len(train) // 64) for count in {1, VIEWS})
    seen = []

    def store(self, found, put=features.FeatureCache.put):
        put(self, found)
        time.sleep(pause)
        done.value = len(self) / num_views

    def see(*arguments, pixels=AugmentedViews.pixels):
        seen.append(1)
        return pixels(*arguments)

    def batch(self, number, make=fitting.FeatureBatches.batch):
        done.value = max(1.0, done.value) + 1 / num_steps
        time.sleep(pause)
        return make(self, number)

    features.FeatureCache.put, AugmentedViews.pixels, fitting.FeatureBatches.batch = store, see, batch
    keras.utils.set_random_seed(0)
    model = create_model("lenet5", num_classes=10)
    options = FinetuneOptions(
        unfreeze="none",
        views=AugmentedViews(VIEWS),
        head=HeadOptions("adam", epochs=EPOCHS),
        extraction=Extraction(batch_size=2),
    )
    result = finetune(
        model,
        Split(train, val, Subset((), ())),
        model_info("lenet5").preprocessing,
        cache_dir=cache_dir,
        options=options,
    )
    kernel, bias = result.model.layers[-1].get_weights()
    plain, val_plain = result.features
    with out.with_suffix(".partial").open("wb") as file:
        np.savez(file, train=plain, val=val_plain, kernel=kernel, bias=bias, seen=len(seen))
    os.replace(out.with_suffix(".partial"), out)


def start(*arguments: object) -> object:
    """``finetune_and_save`` in a process of its own."""
    process = CONTEXT.Process(target=finetune_and_save, args=arguments)
    process.start()
    return process
