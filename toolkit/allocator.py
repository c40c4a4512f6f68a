"""The C library's memory allocator, set up for tensors."""

import ctypes
import os

# glibc's <malloc.h> and the environment variables that set the same for a process from its start.
_M_TOP_PAD, _TOP_PAD_VARIABLE, _TOP_PAD = -2, "MALLOC_TOP_PAD_", 1 << 30
_M_ARENA_MAX, _ARENA_MAX_VARIABLE = -8, "MALLOC_ARENA_MAX"
# Threads that share an arena wait for each other. On few processors that was not to be measured; on many it may be.
_FEW_PROCESSORS = 8


def keep_freed_memory() -> bool:
    """Let this process, and those it starts, keep memory that was freed for what is allocated next.

    TensorFlow frees a step's tensors and allocates the next step's, megabytes each. glibc hands them back to the system
    in between, which has to fill every page with zeros again: up to half of the processors' time in training a small
    network. Called before TensorFlow is imported, this avoids it; the process then keeps the most that it ever used, up
    to a gibibyte more than it uses now. ``benchmarks/allocator.py`` measures both sides.

    The command line calls it. Elsewhere than with glibc, and where the environment sets ``MALLOC_TOP_PAD_`` or
    ``MALLOC_ARENA_MAX``, it leaves everything as it is.

    Returns:
        Whether anything was set.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or {_TOP_PAD_VARIABLE, _ARENA_MAX_VARIABLE} & set(os.environ):
        return False
    settings = [(_M_TOP_PAD, _TOP_PAD_VARIABLE, _TOP_PAD)]
    if (os.cpu_count() or 1) <= _FEW_PROCESSORS:
        settings.append((_M_ARENA_MAX, _ARENA_MAX_VARIABLE, 1))
    for option, variable, value in settings:
        mallopt(option, value)
        os.environ[variable] = str(value)
    return True
