"""Freed memory stays with the process: what was touched once is not filled with zeros again."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, threading
from toolkit.allocator import keep_freed_memory

print(keep_freed_memory() if sys.argv[1] == "keep" else None)
import numpy as np

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def allocate():
    for _ in range(20):
        np.ones(40 << 20, np.uint8)

allocate()
before = faults()
allocate()
print(faults() - before)
"""


def run(what: str, **environment: str) -> tuple[str, int]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT, what]
    done = subprocess.run(command, env=own | environment, capture_output=True, text=True, check=True)
    answer, faults = done.stdout.split()
    return answer, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_not_asked_for_again():
    pages = 20 * (40 << 20) // os.sysconf("SC_PAGE_SIZE")
    _, without = run("leave")
    answer, kept = run("keep")
    assert answer == "True"
    assert kept < pages / 100 < without


def test_what_the_environment_says_stays():
    assert run("keep", MALLOC_TOP_PAD_="131072")[0] == "False"
