"""Places that cannot be written: whichever library notices, one error names the place."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import tempfile

import pytest

from toolkit.errors import UserError, WriteError
from toolkit.files import new_folder, remove_abandoned, replacing, require_writable, scratch_folder, spare_file, writing

FULL = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    "raised",
    [
        OSError(errno.ENOSPC, FULL),
        OSError(errno.ENOSPC, "Can't close file (errno = 28, error message = 'No space left on device')"),  # HDF5's
        RuntimeError(f"/x/variables/part-0.tempstate123; {FULL} [Op:SaveV2]"),  # TensorFlow's
    ],
)
def test_a_full_disk_names_the_place_whoever_notices_it(tmp_path, raised):
    with pytest.raises(WriteError) as failed, writing(tmp_path / "models"):
        raise raised
    assert str(failed.value) == f"{tmp_path}/models: cannot be written (No space left on device)"
    assert failed.value.place == str(tmp_path / "models")
    assert pickle.loads(pickle.dumps(failed.value)).place == failed.value.place


def test_a_full_disk_elsewhere_names_that_place(tmp_path):
    with pytest.raises(WriteError, match=r"^/elsewhere/x: cannot be written \(No space left"), writing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, FULL, "/elsewhere/x")


@pytest.mark.parametrize(
    "raised", [ValueError("no such label"), PermissionError(errno.EACCES, "denied", "/data/1.png")]
)
def test_other_errors_stay_what_they_are(tmp_path, raised):
    with pytest.raises(type(raised)) as failed, writing(tmp_path):
        raise raised
    assert failed.value is raised


def test_what_was_half_written_is_gone(tmp_path):
    def begin(file):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, FULL)

    with pytest.raises(WriteError, match=f"^{tmp_path}/out: cannot be written"), replacing(tmp_path / "out") as file:
        begin(file)
    with pytest.raises(WriteError, match=f"^{tmp_path}/out: cannot be written"), new_folder(tmp_path / "out") as folder:
        begin(folder / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_mapping_takes_its_room_at_once(tmp_path, monkeypatch):
    """A page that the disk has no room for would end the process with a bus error when it is touched."""
    with spare_file(1 << 20, tmp_path) as file:
        assert os.fstat(file.fileno()).st_blocks * 512 >= 1 << 20
    assert list(tmp_path.iterdir()) == []

    def full(*_):
        raise OSError(errno.ENOSPC, FULL)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(WriteError, match=f"^{tmp_path}: cannot be written"), spare_file(1 << 20, tmp_path):
        raise AssertionError


def test_temporary_files_without_room_name_their_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UserError, match=f"^{tmp_path}: cannot be written"), scratch_folder() as directory:
        raise OSError(errno.ENOSPC, FULL, str(directory / "x"))
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    require_writable(tmp_path / "new" / "digits")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"not a writable folder \(.*\); name another place by --out$"):
        require_writable(tmp_path / "file" / "digits", "--out")


def test_what_a_killed_writer_left_is_removed(tmp_path):
    """A hidden file as large as a checkpoint stayed for each kill."""
    script = (
        "import os, signal, sys\nfrom toolkit.files import replacing\n"
        "with replacing(sys.argv[1]) as partial:\n"
        "    partial.write_bytes(b'half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.npz")]).returncode == -signal.SIGKILL
    with replacing(tmp_path / "b.npz") as mine:
        mine.write_bytes(b"half")
        assert len(list(tmp_path.iterdir())) == 2
        remove_abandoned(tmp_path)
        assert list(tmp_path.iterdir()) == [mine]  # of a process that runs
