"""``toolkit compress`` from the outside: what it refuses, how soon, and what it prints."""

import subprocess
import sys
from pathlib import Path

import pytest
from forked import run_command as run

# Fails where a framework was imported on the way to the answer.
_SCRIPT = """
import sys
from toolkit.cli import main
status = main(sys.argv[1:])
loaded = {"tensorflow", "keras", "sklearn", "matplotlib"} & set(sys.modules)
sys.exit(f"imported {loaded}" if loaded else status)
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nowhere: no such folder"),
        (("--method", "int4"), "unknown method 'int4'; did you mean 'int8'"),
        (("--method", "qta"), "unknown method 'qta'"),
        (("--method", "PRUNE", "--sparsity", "50"), "sparsity must lie between 0 and 1, got 50.0"),
        (("--method", "prune", "--pattern", "2;4"), "unknown pattern '2;4'; known: 2:4"),
        (("--clusters", "1"), "at least 2, got 1"),
        (("--learning-rate", "0"), "learning_rate positive, got"),
        (("--report", "no/such/page.html"), "no/such/page.html: cannot be written (no such folder)"),
        (("--report", "."), ".: cannot be written (it is a folder)"),
        (("--keep-worst", "-1"), "keep_worst is a number of layers, got -1"),
    ],
)
def test_bad_requests_are_answered_before_any_framework_is_imported(bundle, tmp_path, arguments, message):
    arguments = ("--data", "nowhere", *(("--method", "qat") if "--method" not in arguments else ()), *arguments)
    command = [sys.executable, "-c", _SCRIPT, "compress", str(bundle), *arguments]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 2, answer.stderr
    (line,) = answer.stderr.splitlines()
    assert line.startswith("toolkit: error: ")
    assert message in line


def test_the_method_may_be_written_in_capitals(bundle, digits, tmp_path):
    """And what is there is said to be there, in a line; the path stands alone on stdout."""
    answer = run("compress", bundle, "--method", "INT8", "--data", digits, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == [str(bundle)]
    assert f"{bundle} has this very int8 file already: nothing was written" in answer.stderr
    assert sorted(path.name for path in Path(bundle).parent.iterdir()) == ["1"]
