"""Settings of the system's allocator."""

import os
import subprocess
import sys

import pytest

# Threads that hold something at one time, and the arenas that they came to.
THREADS = """
import ctypes, sys, tempfile, threading
from pathlib import Path
from toolkit.machine import limit_arenas

if sys.argv[1] == "limited":
    limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
together = threading.Barrier(8)

def allocate():
    held = libc.malloc(50_000)
    together.wait()
    libc.free(held)

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
path = Path(tempfile.mkdtemp(), "arenas.xml")
file = libc.fopen(str(path).encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
print(path.read_text().count("<heap nr="))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_threads_share_two_arenas():
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}

    def arenas(how: str) -> int:
        command = [sys.executable, "-c", THREADS, how]
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    assert arenas("as ever") > 2
    assert arenas("limited") <= 2
