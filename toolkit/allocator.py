"""The C library's memory allocator, set up for tensors."""

import ctypes
import os

# Options of glibc's mallopt, from <malloc.h>, and the variables that set the same for a process from its start.
_TOP_PAD = (-2, "MALLOC_TOP_PAD_", 1 << 30)
_MMAP_THRESHOLD = (-3, "MALLOC_MMAP_THRESHOLD_", 1 << 30)
_ARENA_MAX = (-8, "MALLOC_ARENA_MAX", 1)
# Threads that share an arena wait for each other. On few processors that was not to be measured; on many it may be.
_FEW_PROCESSORS = 8


def keep_freed_memory() -> bool:
    """Let this process, and those it starts, keep memory that was freed for what is allocated next.

    TensorFlow frees a step's tensors and allocates the next step's, megabytes each. glibc hands part of them back to
    the system in between, which fills every page with zeros again. Called before TensorFlow is imported, this avoids
    it; the process then keeps the most that it ever used. ``benchmarks/allocator.py`` measures both sides.

    The command line calls it. Elsewhere than with glibc, and where the environment sets one of its variables
    (``MALLOC_TOP_PAD_`` …), it leaves everything as it is.

    Returns:
        Whether anything was set.
    """
    settings = [_TOP_PAD, _MMAP_THRESHOLD] + [_ARENA_MAX] * ((os.cpu_count() or 1) <= _FEW_PROCESSORS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(variable in os.environ for _, variable, _ in settings):
        return False
    for option, variable, value in settings:
        mallopt(option, value)
        os.environ[variable] = str(value)
    return True
