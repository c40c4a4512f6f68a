import os
import pty
import subprocess
import sys

import pytest

from toolkit.progress import step, track


def test_steps_tell_the_display_what_is_done(told):
    with step("reading", total=4) as advance:
        advance(1)
        with step("inner") as inner:
            inner(3, 9)
        advance(4)
    assert told == [("reading", 1, 4), ("inner", 3, 9), ("reading", 4, 4)]
    assert list(track("ab", "letters")) == ["a", "b"]
    assert told[3:] == [("letters", 1, 2), ("letters", 2, 2)]


SCRIPT = """
import logging, time
from toolkit.cli.output import StderrHandler, progress_bars
from toolkit.progress import step
logging.basicConfig(format="%(message)s", handlers=[StderrHandler()])
with progress_bars():
    with step("reading [v1] pictures", 4) as told:
        for done in range(3):
            told(done + 1)
            time.sleep(0.15)
        logging.warning("a line of the log")
    with step("converting"):
        time.sleep(0.3)
    with step("downloading", 3_000_000, in_bytes=True) as told:
        told(1_500_000)
        time.sleep(0.3)
"""


def stderr_of(script, *, on_terminal, stdout=None):
    if not on_terminal:
        return subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stderr.decode()
    ours, theirs = pty.openpty()
    command, environment = [sys.executable, "-c", script], os.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, stdout=stdout, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:  # what Linux answers once the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    return seen.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_terminal_shows_what_is_done_how_much_and_how_long():
    seen = stderr_of(SCRIPT, on_terminal=True)
    for text in ("reading [v1] pictures", "3/4", "ETA", "converting", "1.5/3.0 MB", "a line of the log"):
        assert text in seen
    assert "0it" not in seen


def test_file_gets_no_bars():
    assert stderr_of(SCRIPT, on_terminal=False) == "a line of the log\n"


PRINTING = """
from toolkit.cli.output import progress_bars
from toolkit.progress import step
with progress_bars():
    print("before")
    with step("working", 2):
        print("within " + "long " * 40)
    print("after")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_output_to_a_file_stays_there_while_bars_are_drawn(tmp_path):
    with (tmp_path / "out.txt").open("w") as out:
        seen = stderr_of(PRINTING, on_terminal=True, stdout=out)
    assert (tmp_path / "out.txt").read_text().splitlines() == ["before", "within " + "long " * 40, "after"]
    assert "before" not in seen
    assert "long" not in seen
    assert "working" in seen


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_nothing_is_drawn_where_there_is_no_step():
    assert stderr_of("from toolkit.cli.output import progress_bars\nwith progress_bars(): 1", on_terminal=True) == ""
