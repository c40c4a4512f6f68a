"""The machine and the process that the package runs in."""

import ctypes
import errno
import gc
import importlib.metadata
import math
import os
import platform
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from toolkit.errors import UserError

_CPUINFO = Path("/proc/cpuinfo")
_WORTH_RETURNING = 16 << 20
_M_ARENA_MAX = -8  # of malloc.h


def num_threads() -> int:
    """Number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Name the processor and how many threads this process may use of it: times hold for machines of equal names."""
    name = _stated("model name", _CPUINFO) or platform.processor() or platform.machine()
    return f"{name}, {num_threads()} threads"


def installed_versions(*packages: str) -> dict[str, str]:
    """Look up the versions of packages; one that is not installed is left out.

    >>> sorted(installed_versions("numpy", "no such package"))
    ['numpy']
    """
    versions = {}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def cache_dir() -> Path:
    """Folder for what the package can make again: ``TOOLKIT_CACHE``, or one in the user's cache."""
    import platformdirs

    return Path(os.environ.get("TOOLKIT_CACHE") or platformdirs.user_cache_dir("toolkit"))


def sums_bytes_exactly(cpuinfo: Path = _CPUINFO) -> bool:
    """Tell if this processor adds products of bytes in 32 bits: with VNNI or AMX, or if it is no x86.

    True where the system does not tell.
    """
    flags = _stated("flags", cpuinfo)
    return flags is None or bool({"avx512_vnni", "avx_vnni", "amx_int8"}.intersection(flags.split()))


#: Features of x86 processors that the engines have kernels for, and the flags of which any one means it is there.
_FEATURES = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "bf16": {"avx512_bf16", "amx_bf16"},
    "AMX": {"amx_tile"},
}


def processor_features(cpuinfo: Path = _CPUINFO) -> dict[str, bool]:
    """Tell which features that the engines have kernels for this processor has; empty if the system does not tell."""
    flags = _stated("flags", cpuinfo)
    return {} if flags is None else {name: not any_of.isdisjoint(flags.split()) for name, any_of in _FEATURES.items()}


def computes_bfloat16(cpuinfo: Path = _CPUINFO) -> bool:
    """Tell if this is an x86 processor that multiplies bfloat16: with AMX or AVX-512 BF16.

    False where the system does not tell.
    """
    flags = _stated("flags", cpuinfo)
    return flags is not None and bool({"amx_bf16", "avx512_bf16"}.intersection(flags.split()))


def instruction_sets(cpuinfo: Path = _CPUINFO) -> list[str]:
    """Name the instruction sets of this processor that the speed of networks depends on, by Linux' names."""
    flags = set((_stated("flags", cpuinfo) or "").split())
    known = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16")
    return [flag for flag in known if flag in flags]


def _stated(field: str, cpuinfo: Path) -> str | None:
    """Look a field of the first processor up; None where the system does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), None)


def bind_address(host: str, port: int, port_option: str = "--port", *, shared: bool = False) -> socket.socket:
    """Bind a TCP socket, not yet listening, so that a port in use is told before anything is loaded.

    ``port_option`` is what the port was given by, named where another one should be chosen. A ``shared`` port may be
    bound by several processes that all share it.

    Raises:
        UserError: no such port, it is in use, or the address is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port must be from 0 to 65535, got {port}")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise cannot_listen(error, host, port, port_option) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise cannot_listen(error, host, port, port_option) from None
    return listener


def cannot_listen(error: OSError, host: str, port: int, port_option: str = "--port") -> UserError:
    """Word the error of a server's socket, see ``bind_address``."""
    if error.errno == errno.EADDRINUSE:
        return UserError(
            f"port {port} on {host} is in use; stop what listens there, or choose another with {port_option}"
        )
    reason = error.strerror or error
    return UserError(f"cannot listen on {host} port {port} ({reason}); choose another with --host or {port_option}")


def return_memory(num_bytes: float = math.inf) -> None:
    """Give back what is no longer held: networks are circles of objects, and the allocator keeps freed pages.

    Args:
        num_bytes: of the weights that were copied, if that is known. For few of them nothing is done: to look through
            all objects of a process that has loaded TensorFlow takes a quarter of a second.
    """
    if num_bytes < _WORTH_RETURNING:
        return
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # glibc's alone
        trim(0)


def limit_arenas(count: int = 2) -> None:
    """Have threads allocate from so few arenas from now on, unless ``MALLOC_ARENA_MAX`` says how many.

    glibc gives threads up to eight for each processor, and each keeps pages that were freed: a process whose threads
    load one network after another would grow by a third. Elsewhere nothing is done.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
            mallopt(_M_ARENA_MAX, count)


def end_with_parent(descriptor: int = 0, *, status: int = 1) -> None:
    """End this process, from a thread, when the other end of a pipe closes: when whoever holds it is done or dead.

    Args:
        descriptor: the reading end, by default standard input; nothing must ever be written to it.
        status: exit status of this process then.
    """

    def wait() -> None:
        os.read(descriptor, 1)
        os._exit(status)

    threading.Thread(target=wait, daemon=True).start()
