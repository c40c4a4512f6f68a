"""Tables as spreadsheets, scripts and competitions write them; what may be read in two ways is refused."""

import codecs

import pytest
from PIL import Image

from toolkit.data import scan_folder
from toolkit.errors import UserError

EXPECTED = {"pictures/one/000.png": "cat", "pictures/one/001.png": "cat", "pictures/two/000.png": "dog"}


@pytest.fixture
def table(make_folder, tmp_path):
    make_folder(tmp_path / "pictures", {"one": 4, "two": 2})
    return tmp_path / "table.csv"


def read(table) -> dict[str, str]:
    folder = scan_folder(table)
    assert folder.problems == ()
    return {path: folder.class_names[label] for path, label in zip(folder.paths, folder.labels, strict=True)}


def rows(pattern: str) -> str:
    return "".join(pattern.format(path=path, label=label) + "\n" for path, label in EXPECTED.items())


@pytest.mark.parametrize(
    ("header", "pattern"),
    [
        ("", "{path},{label}"),
        ("", "{label},{path}"),
        ("", "{path};{label}"),
        ("", "{path}\t{label}"),
        ("", "{path}|{label}"),
        ("filename,class", "{path},{label}"),
        ("image,label", "{path},{label}"),
        ("Class;File_Name", "{label};{path}"),
        (",image_path,category", "7,{path},{label}"),
        ("Unnamed: 0\timg\tTarget", "7\t{path}\t{label}"),
        ("id,filename,label", "7,{path},{label}"),
        ("image,dx", "{path},{label}"),
        ("image,schmetterling", "{path},{label}"),
        ("bild,art", "{path},{label}"),
        ("art,bild", "{label},{path}"),
        ("path,label,class", "{path},{label},3"),
        ("filename , class", '"{path}" , "{label}"'),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_headings_orders_and_delimiters(table, header, pattern, mark):
    table.write_text(mark + (f"{header}\n" if header else "") + rows(pattern), encoding="utf-8")
    assert read(table) == EXPECTED


def test_windows_writes_backslashes_line_ends_and_utf_16(table):
    text = "filename,class\r\n" + rows("{path},{label}").replace("/", "\\").replace("\n", "\r\n")
    for data in (text.encode(), text.encode("utf-16"), codecs.BOM_UTF16_BE + text.encode("utf-16-be")):
        table.write_bytes(data)
        assert read(table) == EXPECTED


@pytest.mark.parametrize("start", ["./", ".\\", "C:\\Users\\me\\data\\", "/home/me/old/place/"])
def test_paths_of_another_machine_lead_to_the_pictures_here(table, start):
    table.write_text(rows(start.replace("\\", "\\") + "{path},{label}"))
    assert {path.removeprefix("./"): label for path, label in read(table).items()} == EXPECTED


@pytest.mark.parametrize("cell", ["{}", "{}.png", "{}.PNG"])
def test_names_without_folder_or_extension_are_found_in_the_one_folder_beside_the_table(make_folder, tmp_path, cell):
    make_folder(tmp_path, {"images": 3, "__MACOSX": 3, "docs": 0})
    lines = [f"{cell.format(f'00{index}')},{label}\n" for index, label in enumerate(("cat", "dog", "cat"))]
    (tmp_path / "train.csv").write_text("id,breed\n" + "".join(lines))
    assert read(tmp_path / "train.csv") == {"images/000.png": "cat", "images/001.png": "dog", "images/002.png": "cat"}


def test_tsv_is_a_table(table):
    text = "path\tlabel\n" + rows("{path}\t{label}")
    table.with_suffix(".tsv").write_text(text)
    assert read(table.with_suffix(".tsv")) == EXPECTED


def test_splits_under_another_heading(table):
    table.write_text("image,label,subset\npictures/one/000.png,cat,Training\npictures/two/000.png,dog,validation\n")
    assert scan_folder(table).splits == ("train", "val")


def test_a_column_a_class_is_read_as_their_labels(tmp_path):
    """As Plant Pathology and Roboflow write them; headed with 'label', one of them taught 0 and 1."""
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8), (ord(name), 0, 0)).save(tmp_path / f"{name}.png")
    table = tmp_path / "table.csv"
    table.write_text("image_id,healthy,rust,scab\na,1,0,0\nb,0,0,1\nc,0.0,1.0,0.0\n")
    folder = scan_folder(table)
    assert (folder.class_names, folder.labels) == (("healthy", "rust", "scab"), (0, 2, 1))
    table.write_text("image_id,healthy,rust,scab\na,1,0,0\nb,0,1,1\nc,0,1,0\n")
    with pytest.raises(UserError, match="'healthy' and 'rust' and 'scab' may each be the label"):
        scan_folder(table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,class,category\n", "line 1: 'class' and 'category' may each be the label"),
        (
            "image,melanoma,nevus\n",
            "'melanoma' and 'nevus' may each be the label; head the one .* with 'label'",
        ),
        ("label,size\ncat,1\ndog,2\n", "line 1: no column for the path in 'label,size'; head the one .* with 'path'"),
        ("filename\n", "line 1: expected path,label"),
        ("filename,class\n", "no rows"),
    ],
)
def test_what_may_be_read_in_two_ways_is_one_clear_line(table, text, message):
    table.write_text(text + ("pictures/one/000.png,1,1\n" if text.count(",") == 2 else ""))
    with pytest.raises(UserError, match=message) as error:
        scan_folder(table)
    assert "\n" not in str(error.value)
    assert str(table) in str(error.value)


def test_a_name_in_several_folders_or_of_several_files_is_one_clear_line(make_folder, tmp_path):
    make_folder(tmp_path, {"train": 2, "test": 2, "mixed": 1})
    (tmp_path / "a.csv").write_text("id,label\n000,cat\n001,dog\n")
    with pytest.raises(UserError, match=r"a\.csv: '000' is in test and in train; write the folder"):
        scan_folder(tmp_path / "a.csv")
    (tmp_path / "mixed/000.jpg").write_bytes((tmp_path / "mixed/000.png").read_bytes())
    (tmp_path / "b.csv").write_text("id,label\nmixed/000,cat\ntrain/001,dog\n")
    with pytest.raises(UserError, match=r"line 2: 'mixed/000' may be mixed/000\.jpg or mixed/000\.png"):
        scan_folder(tmp_path / "b.csv")
