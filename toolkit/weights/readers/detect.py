"""Tell the format of a file by its content: people rename weights files, and downloads answer with web pages."""

from pathlib import Path

from toolkit.errors import UserError
from toolkit.weights.readers.tensor_file import map_file, open_archive

_KNOWN = ".keras, .weights.h5, .h5, .safetensors, torch .pth/.pt/.th/.bin and .caffemodel"
_MAX_HEADER = 100_000_000  # of safetensors, by its specification
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")
_ARCHIVES = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z", b"(\xb5/\xfd": "zstd"}


def check_file(path: Path) -> None:
    """Refuse what is no file, and files that are not what was asked for."""
    if not path.exists():
        raise UserError(f"no weights file at {path}")
    if not path.is_file():
        raise UserError(f"{path} is not a file; give the path of a weights file: {_KNOWN}")
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; see who may read it") from error
    if not head:
        raise UserError(f"{path} is empty; download or save it again")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer and not the file it stands for; run `git lfs pull`")
    if head.lstrip().lower().startswith(_PAGES):
        raise UserError(f"{path} is a web page and not weights; the address answered with a page, download it again")
    if head.isascii() and "".join(head.decode().split()).isprintable():  # a text, which can be told at once
        raise UserError(f"{path}: is no weights file; these are read: {_KNOWN}")
    if head[257:262] == b"ustar":
        raise UserError(f"{path} is a tar archive; unpack it and give the weights file within")


def format_of(path: Path) -> str:
    """The format of a file that ``check_file`` let pass; the name decides only where the content cannot."""
    # Imported here, because they bring NumPy, and naming a network must not wait for it.
    from toolkit.weights.readers.caffe import is_caffemodel
    from toolkit.weights.readers.keras_file import hdf5_format

    view = map_file(path)
    if view[:8] == b"\x89HDF\r\n\x1a\n":
        return hdf5_format(view)
    if view[:4] == b"PK\x03\x04":
        return _zip_format(path)
    if view[8:9] == b"{" and int.from_bytes(view[:8], "little") <= _MAX_HEADER:
        return "safetensors"
    if view[:1] == b"\x80" and view[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "torch"
    if is_caffemodel(view):
        return "caffemodel"
    for magic, name in _ARCHIVES.items():
        if view[: len(magic)] == magic:
            raise UserError(f"is a {name} archive; unpack it and give the weights file within")
    if path.name.endswith(".caffemodel"):
        return "caffemodel"
    raise UserError(f"is no weights file; these are read: {_KNOWN}")


def _zip_format(path: Path) -> str:
    names = open_archive(path).entries
    if "config.json" in names:
        return "keras"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    raise UserError("is an archive of neither Keras nor torch; unpack it and give the weights file within")
