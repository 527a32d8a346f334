"""PoCL 3.0, the one of PyPI, on CPUs that are newer than its LLVM 14.

It asks LLVM for the name of the CPU, takes ``generic`` where LLVM does not know it (Zen 5), and hands that to Clang,
which has no such CPU on x86: every program fails to build. No option and no variable of the environment replaces the
name; so it is replaced where PoCL keeps it, in the device that its own pointer names.
tests/backend/test_opencl_driver.py fails once PoCL knows the CPU itself.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Any

__all__ = ["give_known_cpu", "lacks_cpu"]

_UNKNOWN = b"generic\0"
_DEVICE_BYTES = 4096  # PoCL 3.0's struct _cl_device_id has about 1,500
_NEEDED = {"avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"}  # of LLVM's "haswell"; Linux's abm is its lzcnt


def lacks_cpu(device: Any, message: str) -> bool:
    """Whether a build failed because PoCL's Clang does not know the name that PoCL has for this CPU."""
    return bool(device.platform.name == "Portable Computing Language" and "unknown target CPU 'generic'" in message)


def give_known_cpu(device: Any) -> bool:
    """Have PoCL compile for ``haswell`` (AVX2) or ``x86-64`` in place of ``generic``; False if its name is not found.

    Memory is read through the system, which refuses addresses that do not exist, so that another PoCL's device is
    searched in vain and not with a crash.
    """
    name = b"haswell\0" if _flags() >= _NEEDED else b"x86-64\0"
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        words = _read(memory.fileno(), device.int_ptr, _DEVICE_BYTES)
        pointers = [word for (word,) in struct.iter_unpack("<Q", words[: len(words) // 8 * 8])]
        named = {one for one in pointers if _read(memory.fileno(), one, len(_UNKNOWN)) == _UNKNOWN}
    for address in named:
        ctypes.memmove(address, name, len(name))  # not longer than what is there
    return bool(named)


def _read(memory: int, address: int, nbytes: int) -> bytes:
    """Bytes of this process; fewer, or none, where there is no memory."""
    try:
        return os.pread(memory, nbytes, address)
    except (OSError, OverflowError):  # no such page; no such offset
        return b""


def _flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
