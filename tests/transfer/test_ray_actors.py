"""A local Ray of two nodes: the same features under the same keys, and the same answers."""

import json
import os
import signal
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from toolkit import create_model, model_info
from toolkit.data import ImageError
from toolkit.errors import UserError
from toolkit.progress import shown_on
from toolkit.transfer import AugmentedViews, Extraction, FeatureExtractor
from toolkit.transfer.ray_actors import connected
from toolkit.transfer.stages import pooled_cuts

PREPROCESSING = model_info("lenet5").preprocessing


@pytest.fixture(scope="module")
def address():
    """Two nodes of a processor each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(1)
    return create_model("lenet5", num_classes=3)


@pytest.fixture(scope="module")
def pictures(digits):
    return [str(path) for path in sorted(digits.glob("*/*.png"))[::20]]


def extract(model, paths, cache_dir, views=None, **how):
    how = Extraction(dtype="float32", engine="keras", batch_size=4, **how)
    with FeatureExtractor(model, PREPROCESSING, cache_dir=cache_dir, how=how) as extractor:
        return extractor.extract(paths, views=views or AugmentedViews(2, seed=3))


def assert_equal_but_for_rounding(ours, theirs):
    """TensorFlow adds up in another order where it has other threads, and at another place in a batch."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def actors():
    """Ray's processes that hold a worker, on any node of this machine."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            name = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::MapWorker"):
            found.append(int(directory.name))
    return found


@pytest.mark.slow
def test_features_are_the_local_ones_under_the_same_keys(address, small, pictures, tmp_path, told):
    over_ray = extract(small, pictures, tmp_path / "ray", ray=address)
    num_views = 2 * len(pictures)
    assert over_ray.num_computed == num_views
    assert told[-1] == ("computing features", num_views, num_views)
    assert over_ray.engine == "Keras float32 over Ray"
    here = extract(small, pictures, tmp_path / "here")
    assert_equal_but_for_rounding(over_ray.values, here.values)
    again = extract(small, pictures, tmp_path / "ray")
    assert (again.num_computed, again.engine) == (0, "")
    np.testing.assert_array_equal(again.values, over_ray.values)


@pytest.mark.slow
def test_features_of_all_cuts_come_from_one_pass_there_too(address, small, pictures, tmp_path, told):
    cuts = pooled_cuts(small)
    found = []
    for directory, ray in (("here", None), ("ray", address)):
        how = Extraction(dtype="float32", engine="keras", batch_size=4, ray=ray)
        with FeatureExtractor(small, PREPROCESSING, cache_dir=tmp_path / directory, how=how) as alone:
            alone.extract(pictures[:5])
        told.clear()
        with FeatureExtractor(small, PREPROCESSING, cache_dir=tmp_path / directory, how=how, cuts=cuts) as extractor:
            found.append(extractor.extract_cuts(pictures, views=AugmentedViews(2, seed=3)))
        assert told[-1] == ("computing features", 2 * len(pictures), 2 * len(pictures))
    here, there = found
    assert [features.num_computed for features in there.values()] == [2 * len(pictures)] * 3 + [2 * len(pictures) - 5]
    for name, features in here.items():
        assert_equal_but_for_rounding(there[name].values, features.values)


@pytest.mark.slow
def test_worker_that_is_killed_is_replaced(address, small, pictures, tmp_path):
    killed = []

    class Killer:
        def begin(self, *step):
            return 0

        def update(self, *step):
            if not killed:
                killed.extend(actors())
                os.kill(killed[0], signal.SIGKILL)
                time.sleep(0.1)

        def end(self, number): ...

    how = Extraction(dtype="float32", engine="keras", batch_size=4, ray=address)
    extractor = FeatureExtractor(small, PREPROCESSING, cache_dir=tmp_path / "ray", how=how)
    with extractor, shown_on(Killer()):
        found = extractor.extract(pictures)
    assert len(killed) == 2
    here = extract(small, pictures, tmp_path / "here", views=AugmentedViews())
    assert_equal_but_for_rounding(found.values, here.values)


@pytest.mark.slow
def test_picture_that_cannot_be_read_is_named(address, small, pictures, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(ImageError, match="not a picture in a supported format"):
        extract(small, [*pictures[:8], str(tmp_path / "bad.png")], tmp_path / "ray", ray=address)


@pytest.mark.slow
def test_predict_answers_over_a_cluster_what_it_answers_here(address, bundle, pictures, tmp_path, capsys):
    from toolkit.cli import commands
    from toolkit.cli.parser import build_parser

    (tmp_path / "bad.png").write_text("no picture")
    given = [*pictures[:3], str(tmp_path / "bad.png"), *pictures[3:20], str(tmp_path / "gone.png")]
    answers, errors = [], []
    for options in ([], ["--cluster", address]):
        command = ["predict", str(bundle), *given, "--engine", "litert", "--json", *options]
        with pytest.raises(SystemExit) as status:
            commands.predict(build_parser().parse_args(command))
        assert status.value.code == 1
        out, err = capsys.readouterr()
        answers.append(json.loads(out))
        errors.append(err)
    assert [answer["path"] for answer in answers[0]] == given
    assert [answer["path"] for answer in answers[0] if "error" in answer] == [given[3], given[-1]]
    assert answers[0] == answers[1]
    assert errors[0] == errors[1]


def test_cluster_that_is_not_there_is_said():
    pytest.importorskip("ray")
    with (
        pytest.raises(UserError, match=r"no Ray cluster at '127.0.0.1:9' .*`ray start --head`"),
        connected("127.0.0.1:9"),
    ):
        pass
