"""A small complete backend of the integration path `simt` (docs/plugins.md): its chip is this machine's C compiler."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

from torchport_simt import SIMTCompiler

from torchport.capabilities import Capabilities
from torchport.errors import CompilationError, TargetError
from torchport.plugin import API_VERSION, Device
from torchport.target import Target
from torchport_example.spelling import SPELLING, entry

_COMMAND = "cc -O1 -shared -fPIC -ffp-contract=off -fno-strict-aliasing -fwrapv -w -o kernel.so kernel.c -lm".split()
_FLOATS = frozenset({"fp16", "bf16", "fp32", "fp64"})
_CAPABILITIES = Capabilities(
    simd_width=1, simd_groups=(1,), scratchpad_bytes=1 << 24, grid=(2**31 - 1, 65535, 65535),
    block_elements=64,  # the code of a lane is unrolled over its elements
    dtypes=_FLOATS | {"int1", "int8", "int16", "int32", "int64", "fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16"},
    promoted={"fp16": "fp32", "bf16": "fp32"},
    atomics=_FLOATS | {"int32", "int64"},
    dot_precisions=frozenset({"ieee"}), denormals=_FLOATS,
)  # fmt: skip


class ExampleBackend:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "example"
    api_version = API_VERSION
    options = {"cpu_backend": "triton"}  # noqa: RUF012  (tensors live on the CPU: Inductor must write Triton for it)

    def devices(self):
        missing = "" if shutil.which("cc") else "there is no command cc: install a C compiler"
        return [Device(Target("example"), "C on this machine", missing)]

    def capabilities(self, target):
        if target != Target("example"):
            raise TargetError(f"target {target} is not known; this backend has only example")
        return _CAPABILITIES

    @functools.cache  # noqa: B019  (there is one backend)
    def compiler(self, target):
        return SIMTCompiler(target, SPELLING, self.capabilities(target))

    @functools.cache  # noqa: B019  (one driver per device: it holds the copies of tensors)
    def driver(self, target):
        from torchport.runtime.devices import DeviceDriver

        if missing := self.devices()[0].missing:
            raise TargetError(f"target {target} runs nothing here: {missing}")
        return DeviceDriver(_MEMORY, build, self.capabilities(target).grid)


_MEMORY = SimpleNamespace(  # satisfies torchport.runtime.devices.Memory
    allocate=ctypes.create_string_buffer,
    release=lambda buffer: None,
    upload=lambda buffer, address, nbytes: ctypes.memmove(buffer, address, nbytes),
    download=lambda address, buffer, nbytes: ctypes.memmove(address, buffer, nbytes),
)


def build(binary, parameters):
    """Compile and load a kernel; returns a function of grid and arguments. Raises CompilationError."""
    program = SPELLING.program(binary.data.decode(), binary.metadata["lanes"]) + entry(binary.symbol, parameters)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.c").write_text(program)
        result = subprocess.run(_COMMAND, cwd=folder, capture_output=True, text=True, check=False)
        if result.returncode:
            raise CompilationError(f"cc refuses kernel {binary.symbol}: {result.stderr[:500]}", kernel=binary.symbol)
        run = ctypes.CDLL(f"{folder}/kernel.so").tp_run
    known = {"buffer": ctypes.c_void_p, "fp32": ctypes.c_float, "fp64": ctypes.c_double}
    integer = {"i": "c_int", "u": "c_uint"}
    types = [known.get(name) or getattr(ctypes, integer[name[0]] + name[1:]) for name in parameters]
    run.argtypes = [ctypes.c_uint32] * 3 + types
    run.restype = None
    return lambda grid, arguments: run(*grid, *arguments)


backend = ExampleBackend()
