"""Class names: read from a text, or found where a network's file has them."""

import json
import zipfile

import pytest

from toolkit.errors import UserError
from toolkit.factory import find_labels, read_labels
from toolkit.files import no_such_file

onnx = pytest.importorskip("onnx")
NAMES = ("ant", "bee hive", "wasp")


def onnx_file(path, **notes):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value])
    document = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(document, notes)
    onnx.save(document, str(path))
    return path


@pytest.mark.parametrize(
    "text", ["ant\nbee hive\nwasp\n", "0 ant\n1 bee hive\n2 wasp", "\ufeffant\r\n\r\nbee hive\r\nwasp"]
)
def test_a_text_is_read_as_people_write_it(tmp_path, text):
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert read_labels(tmp_path / "labels.txt") == NAMES


@pytest.mark.parametrize("name", ["می\u200cخواهم", "👩\u200d🍳", "bee\u00a0hive", "café", "犬"])
def test_names_are_of_any_script(tmp_path, name):
    (tmp_path / "labels.txt").write_text(f"ant\n{name}\n", encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == ("ant", name)


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a picture", "café\nthé".encode("latin-1"), b"a\0b\0\x01\0"])
def test_a_text_that_is_none_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"labels\.txt: not a text; expected class names, one a line"):
        read_labels(tmp_path / "labels.txt")
    with pytest.raises(UserError) as error:
        read_labels(tmp_path / "label.txt")
    assert str(error.value) == str(UserError(no_such_file(str(tmp_path / "label.txt"))))


@pytest.mark.parametrize(
    "notes",
    [
        {"labels": json.dumps(NAMES)},  # this package's
        {"names": str(dict(enumerate(NAMES)))},  # Ultralytics'
        {"labels": "ant, bee", "names": "{1: 'bee hive', 0: 'ant', 2: 'wasp'}"},
    ],
)
def test_an_onnx_file_notes_them(tmp_path, notes, caplog):
    caplog.set_level("INFO", "toolkit")
    (tmp_path / "labels.txt").write_text("something\nelse\nbeside\n")
    assert find_labels(onnx_file(tmp_path / "m.onnx", **notes)) == NAMES
    assert "3 classes, by their names in" in caplog.text
    assert "m.onnx: ant, bee hive, wasp" in caplog.text


@pytest.mark.parametrize(
    "notes",
    [
        {},
        {"labels": "{}"},
        {"names": "{0: 'ant', 2: 'wasp'}"},
        {"labels": "[1, 2]"},
        {"names": "__import__('os')"},
        {"names": "{[]: 1}"},
    ],
)
def test_a_note_of_something_else_is_passed_over(tmp_path, notes):
    file = onnx_file(tmp_path / "m.onnx", **notes)
    with pytest.raises(UserError, match=r"m\.onnx: does not bring the names of its classes; give them with --labels"):
        find_labels(file)
    (tmp_path / "labels.txt").write_text("ant\nbee hive\nwasp\n")
    assert find_labels(file) == NAMES


@pytest.mark.parametrize("names", [("0 bad", "1 good"), ("", " ant")])
def test_a_noted_list_is_taken_as_it_is(tmp_path, names):
    assert find_labels(onnx_file(tmp_path / "m.onnx", labels=json.dumps(names))) == names


def test_a_note_with_a_name_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"labels in .*m\.onnx: expected class names, one a line, each once, got 2"):
        find_labels(onnx_file(tmp_path / "m.onnx", labels='["ant", "ant"]'))


def test_a_litert_file_packs_them(tmp_path):
    file = tmp_path / "m.tflite"
    file.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    with pytest.raises(UserError, match="does not bring the names"):
        find_labels(file)
    with zipfile.ZipFile(file, "a") as packed:  # behind the network, as TensorFlow's metadata writer does
        packed.writestr("labelmap.txt", "ant\nbee hive\nwasp\n")
    assert find_labels(file) == NAMES
    with zipfile.ZipFile(file, "a") as packed:  # which of two?
        packed.writestr("labels.de.txt", "Ameise\nBienenstock\nWespe\n")
    with pytest.raises(UserError, match="does not bring the names"):
        find_labels(file)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_packed_text_that_is_damaged_is_passed_over(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "m.tflite", "w", kind) as packed:
        packed.writestr("labels.txt", "ant\nbee hive\nwasp\n")
    content = bytearray((tmp_path / "m.tflite").read_bytes())
    if kind == zipfile.ZIP_DEFLATED:
        content[40:43] = b"\xff\xff\xff"  # the packed text's beginning, after its name
    else:
        sizes = content.index(b"PK\1\2") + 20
        content[sizes : sizes + 8] = 2 * (9_000_000).to_bytes(4, "little")  # more than there is
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(UserError, match="does not bring the names"):
        find_labels(tmp_path / "m.tflite")


@pytest.mark.parametrize("place", ["labels.txt", "m/labels.txt", "m/assets/labels.txt"])
def test_they_stand_beside_a_folder_or_in_it(tmp_path, place):
    (tmp_path / "m" / "assets").mkdir(parents=True)
    (tmp_path / place).write_text("0 ant\n1 bee hive\n2 wasp\n")
    assert find_labels(tmp_path / "m") == NAMES


def test_damaged_files_bring_none(tmp_path):
    for name, message in (("m.tflite", "does not bring the names"), ("m.onnx", "is no ONNX file, or is cut off")):
        (tmp_path / name).write_bytes(b"PK\x05\x06" + bytes(18))
        with pytest.raises(UserError, match=message):
            find_labels(tmp_path / name)
