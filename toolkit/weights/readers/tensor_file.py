"""A weights file as its readers see it: mapped bytes, the entries of an archive, and the named arrays in them.

Nothing is copied or unpacked.
"""

import mmap
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError

if TYPE_CHECKING:
    import numpy as np

#: Beginning of a ``.keras`` archive's comment in which this package tells what Keras does not. An entry would have
#: Keras unpack the archive onto the disk each time it is opened.
NOTE = b"toolkit "

_LOCAL_HEADER = 30


@dataclass(frozen=True)
class TensorFile:
    """The named arrays of one weights file.

    Attributes:
        path: where the file lies.
        format: one of ``toolkit.weights.readers.FORMATS``.
        tensors: arrays by name, in the file's order. Keras and Caffe files number a layer's arrays,
            ``"conv1/0"``, ``"conv1/1"``; torch and safetensors files name them, ``"conv1.weight"``. Read-only views
            of the mapped file wherever its bytes can serve as they lie: do not shorten the file while they are in use.
        metadata: text that came with the arrays: all of a safetensors header's, and ``"toolkit"``, a root
            attribute of an HDF5 file or the comment of a ``.keras`` archive.
        layers: settings of each layer in the configuration of a whole model, ``.keras`` or ``.h5``, input to output,
            lists as tuples: they tell networks apart whose arrays are alike, such as ResNet v1 and v1.5. Empty for
            other formats.
        num_bytes: that the arrays lie among: those of the file, or more where its archive was compressed.
    """

    path: Path
    format: str
    tensors: "dict[str, np.ndarray]"
    metadata: dict[str, str] = field(default_factory=dict)
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_bytes: int = 0


def map_file(path: Path) -> memoryview:
    """The bytes of a file that is not empty, read-only, paged in where they are touched."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@dataclass(frozen=True)
class Archive:
    """A zip archive whose entries are stored as they are, which is how both Keras and torch write theirs."""

    data: memoryview
    entries: dict[str, zipfile.ZipInfo]
    comment: bytes = b""

    def view(self, name: str, max_bytes: int | None = None) -> memoryview:
        """The bytes of an entry, where they lie in the file."""
        return self.data[slice(*self.span(name, max_bytes))]

    def span(self, name: str, max_bytes: int | None = None) -> tuple[int, int]:
        """Start and end of an entry in the file; refuses what is compressed, encrypted or damaged."""
        if name not in self.entries:
            raise UserError(f"the archive holds no {name[:100]!r}; download or save the file again")
        entry = self.entries[name]
        # A compressed entry may grow a thousandfold: neither Keras nor torch writes one. See also ``keras_file``.
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise UserError(f"{name[:100]!r} is compressed or encrypted within the archive; save the weights again")
        if max_bytes is not None and entry.file_size > max_bytes:
            raise UserError(f"{name[:100]!r} claims {entry.file_size:,} bytes; at most {max_bytes:,} are read")
        header = self.data[entry.header_offset : entry.header_offset + _LOCAL_HEADER]
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise UserError(f"the archive is damaged where {name[:100]!r} should begin; download or save it again")
        name_length, extra_length = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        start = entry.header_offset + _LOCAL_HEADER + name_length + extra_length
        content = self.data[start : start + entry.file_size]
        # torch leaves the checksum zero when told not to compute it.
        if len(content) != entry.file_size or (entry.CRC and zlib.crc32(content) != entry.CRC):
            raise UserError(f"{name[:100]!r} in the archive is damaged; download or save the file again")
        return start, start + entry.file_size


def open_archive(path: Path) -> Archive:
    """The directory of a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return Archive(map_file(path), {entry.filename: entry for entry in archive.infolist()}, archive.comment)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError("is a zip archive cut short or damaged; download or save it again") from error
