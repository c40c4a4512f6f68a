"""Keras's three formats: the arrays are the model's own, and HDF5 can neither point elsewhere nor claim too much."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

from toolkit.errors import UserError
from toolkit.weights.readers import keras_file, read_tensors


@pytest.fixture(scope="module")
def model():
    """All that matters to a reader: strides, moving statistics, dropout's seed, frozen layers, an optimizer's state."""
    inputs = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, name="stem_conv")(inputs)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    x = keras.layers.MaxPooling2D(2, strides=(2, 1), name="stem_pool")(x)
    x = keras.layers.Dropout(0.5, name="head_dropout")(keras.layers.Flatten(name="head_flatten")(x))
    model = keras.Model(inputs, keras.layers.Dense(5, name="head_logits")(x))
    model.get_layer("stem_bn").trainable = False
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.standard_normal(weight.shape))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def _save(model, path):
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)
    return path


def _arrays(model):
    layers = [(layer.name, layer.get_weights()) for layer in model.layers]
    return {f"{name}/{index}": array for name, arrays in layers for index, array in enumerate(arrays)}


def _check(path, model, format):
    file = read_tensors(path)
    assert file.format == format
    assert file.tensors.keys() == _arrays(model).keys()
    for name, array in _arrays(model).items():
        np.testing.assert_array_equal(file.tensors[name], array, err_msg=name)
    return file


@pytest.mark.parametrize(("name", "format"), [("m.keras", "keras"), ("m.weights.h5", "weights.h5"), ("m.h5", "h5")])
def test_arrays_are_the_models(tmp_path, model, name, format):
    file = _check(_save(model, tmp_path / name), model, format)
    strides = {name: settings["strides"] for name, settings in file.layers.items() if "strides" in settings}
    assert strides == ({"stem_conv": (2, 2), "stem_pool": (2, 1)} if format != "weights.h5" else {})
    assert not any(array.flags.owndata for array in file.tensors.values())


def _rewritten(path, compression=zipfile.ZIP_DEFLATED, weights=None):
    """The archive written anew, compressed, perhaps with other bytes for its weights."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries |= {} if weights is None else {"model.weights.h5": weights}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_compressed_archive_holds_the_same_arrays_and_settings(tmp_path, model):
    before = read_tensors(_save(model, tmp_path / "m.keras"))
    file = _check(_rewritten(tmp_path / "m.keras"), model, "keras")
    assert file.layers == before.layers


def test_compressed_network_may_be_mostly_zeros(tmp_path):
    pruned = keras.Sequential([keras.Input((1024,)), keras.layers.Dense(2048, name="fc")])
    kernel = np.random.default_rng(0).standard_normal((1024, 2048), np.float32)
    pruned.layers[0].set_weights([np.where(np.abs(kernel) > 2.5, kernel, 0), np.ones(2048)])  # 1 in 80 stays
    path = _rewritten(_save(pruned, tmp_path / "m.keras"))
    assert path.stat().st_size < 500_000  # of 8 MB
    _check(path, pruned, "keras")


def test_compressed_archive_may_not_grow_without_bounds(tmp_path, model):
    path = _rewritten(_save(model, tmp_path / "m.keras"), weights=bytes(50 << 20))
    assert path.stat().st_size < 50 << 20 >> 8
    with pytest.raises(UserError, match=r"'model\.weights\.h5' claims 52,428,800 bytes; at most .* are unpacked"):
        read_tensors(path)


@pytest.mark.parametrize("damage", ["bytes", "size"])
def test_compressed_archive_that_is_damaged(tmp_path, model, damage):
    path = _rewritten(_save(model, tmp_path / "m.keras"))
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("model.weights.h5")
    content = bytearray(path.read_bytes())
    if damage == "bytes":
        content[entry.header_offset + 200 : entry.header_offset + 300] = bytes(100)
    else:  # the directory's, which comes last
        at = content.rindex(entry.file_size.to_bytes(4, "little"))
        content[at : at + 4] = (entry.file_size - 1000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"'model\.weights\.h5' in the archive is damaged") as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_other_compression_is_refused(tmp_path, model):
    path = _rewritten(_save(model, tmp_path / "m.keras"), zipfile.ZIP_BZIP2)
    with pytest.raises(UserError, match="is compressed or encrypted within the archive"):
        read_tensors(path)


def test_legacy_weights_alone_with_names_in_pieces(tmp_path, model):
    """As ``save_weights`` of Keras 2 and keras.applications have it; long lists of names come in numbered pieces."""
    path = tmp_path / "weights_tf_kernels.h5"
    with h5py.File(_save(model, tmp_path / "m.h5")) as whole, h5py.File(path, "w") as file:
        for name in whole["model_weights"]:
            whole["model_weights"].copy(name, file)
        names = [name.encode() for name in whole["model_weights"].attrs["layer_names"]]
        file.attrs.create("layer_names0", names[:2], dtype="S20")
        file.attrs.create("layer_names1", names[2:], dtype="S20")
    _check(path, model, "h5")


def test_metadata_and_bfloat16(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
    finally:
        keras.config.set_dtype_policy("float32")
    path = _save(model, tmp_path / "m.weights.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["toolkit"] = json.dumps({"model": "resnet50"})
    file = read_tensors(path)
    assert file.metadata == {"toolkit": '{"model": "resnet50"}'}
    assert file.tensors["fc/0"].dtype == np.float32
    np.testing.assert_array_equal(file.tensors["fc/0"], model.layers[0].get_weights()[0].astype("f4"))


def _bomb(group, name):
    group.create_dataset(name, (1 << 40,), "f4")


def _gzip_bomb(group, name):
    group.create_dataset(name, (1 << 34,), "f4", chunks=(1 << 20,), compression="gzip")


def _compressed(group, name):
    group.create_dataset(name, data=np.zeros(1 << 16, "f4"), compression="gzip")


def _in_another_file(group, name):
    group[name] = h5py.ExternalLink("/etc/hostname", "/")


def _in_another_place(group, name):
    group[name] = h5py.SoftLink("/layers")


def _raw_in_another_file(group, name):
    group.create_dataset(name, (4,), "i1", external=[("/etc/hostname", 0, 4)])


def _virtual(group, name):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", (4,))
    group.create_virtual_dataset(name, layout)


def _text(group, name):
    group[name] = "text"


def _group(group, name):
    group.create_group(name)


def _odd_float(group, name):
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100)
    space = h5py.h5s.create_simple((4,))
    data = h5py.h5d.create(group.id, name.encode(), kind, space)
    data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones(4, "f4"))


@pytest.mark.parametrize("kind", ["weights.h5", "h5"])
@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (_bomb, "claims 4,398,046,511,104 bytes and holds 0"),
        (_gzip_bomb, "is compressed or in chunks"),
        (_compressed, "is compressed or in chunks"),
        (_in_another_file, "kept in another file"),
        (_in_another_place, "kept in another file or place"),
        (_raw_in_another_file, "kept in another file"),
        (_virtual, "kept in another file"),
        (_text, "holds object and not numbers"),
        (_group, "holds no array where 'head_logits/0' should be"),
        (_odd_float, "not numbers as NumPy has them"),
    ],
)
def test_what_hdf5_could_do_and_keras_never_does(tmp_path, model, kind, plant, message):
    path = _save(model, tmp_path / f"evil.{kind}")
    with h5py.File(path, "r+") as file:
        place = "layers/dense/vars" if kind == "weights.h5" else "model_weights/head_logits"
        name = "0" if kind == "weights.h5" else file[place].attrs["weight_names"][0]
        del file[place][name]
        plant(file[place], name)
    with pytest.raises(UserError, match=message) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_one_array_under_many_names(tmp_path, model):
    path = _save(model, tmp_path / "evil.weights.h5")
    with h5py.File(path, "r+") as file:
        group = file["layers/dense/vars"]
        for index in range(2, 200):
            group[str(index)] = group["0"]
    with pytest.raises(UserError, match="bytes of arrays; at most"):
        read_tensors(path)


def test_groups_that_hold_themselves(tmp_path, model):
    path = _save(model, tmp_path / "evil.weights.h5")
    with h5py.File(path, "r+") as file:
        for index in range(10):
            file["layers/conv2d"][f"again{index}"] = file["layers/conv2d"]
    with pytest.raises(UserError, match="holds two layers named 'stem_conv'"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import time; time.sleep(60)", "found no end to it"),
        ("import os; os.abort()", "HDF5's library failed on it"),
        ("print('[')", "HDF5's library failed on it"),
    ],
)
def test_a_library_that_hangs_or_crashes_harms_nothing(tmp_path, monkeypatch, model, script, message):
    path = _save(model, tmp_path / "m.weights.h5")
    (tmp_path / "worker.py").write_text(script)
    monkeypatch.setattr(keras_file, "_WORKER", tmp_path / "worker.py")
    monkeypatch.setattr(keras_file, "TIMEOUT_SECONDS", 1)
    with pytest.raises(UserError, match=message):
        read_tensors(path)


def test_a_keras_archive_is_not_built(tmp_path):
    """Its configuration may name any class and any function; only names and settings are looked at."""
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 2, name="conv", strides=2)])
    path = _save(model, tmp_path / "m.keras")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"] += [{"module": "os", "class_name": "system", "config": {"name": "evil"}}]
    evil = tmp_path / "evil.keras"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", parts["model.weights.h5"])
    assert read_tensors(evil).layers["conv"]["strides"] == (2, 2)
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
        archive.writestr("model.weights.h5", parts["model.weights.h5"])
    with pytest.raises(UserError, match=r"evil\.keras is not a readable keras file"):
        read_tensors(evil)
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("config.json", parts["config.json"])
    with pytest.raises(UserError, match=r"holds no 'model\.weights\.h5'"):
        read_tensors(evil)
