"""The integration path ``triton``: a Driver over Triton's own driver for a GPU."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torchport.errors import CompilationError
from torchport.plugin import Binary, Launcher

__all__ = ["TritonDriver"]

_FORMAT = re.compile(r"\w{1,16}")


class TritonDriver:
    """Satisfies ``torchport.plugin.Driver`` for tensors of ``device``, on which Inductor launches its Triton kernels.

    ``version``: version of the vendor's driver, for which entries of the quarantine are valid.
    """

    stock = True

    def __init__(self, device: str, version: str = "") -> None:
        self.device = device
        self.version = version
        self._kernels: dict[int, Any] = {}
        self._numbers = itertools.count(1)

    def load(self, binary: Binary, types: Sequence[str]) -> tuple[Launcher, int]:
        """Load a kernel compiled by ``triton.compile``, here or elsewhere, with Triton's active driver.

        Raises CompilationError if the driver rejects it: code for another chip, too much shared memory.
        """
        from triton.errors import TritonError

        from torchport.triton.compat import CompiledKernel

        if not _FORMAT.fullmatch(binary.format) or binary.format == "json":
            raise CompilationError(f"{binary.format[:40]!r} is no format of machine code", stage="load")
        # What triton.compile takes of its source after compilation: the arguments, and which of them are compiled in.
        names = [f"argument{i}" for i in range(len(types))]
        source = SimpleNamespace(
            signature=dict(zip(names, types, strict=True)),
            constants={(i,): None for i, type_ in enumerate(types) if type_ == "constexpr"},
            fn=SimpleNamespace(arg_names=names),
        )
        with tempfile.TemporaryDirectory() as folder:  # CompiledKernel reads what Triton's cache would hold
            metadata, image = Path(folder) / "kernel.json", Path(folder) / f"kernel.{binary.format}"
            metadata.write_text(json.dumps(dict(binary.metadata)))
            image.write_bytes(binary.data)
            files = {file.name: str(file) for file in (metadata, image)}
            try:
                kernel = CompiledKernel(source, files, binary.metadata["hash"])
                kernel[1, 1, 1]  # links it now, where an error still has a name
            except (TritonError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
                raise CompilationError(
                    f"kernel {binary.symbol} cannot be loaded: {type(error).__name__}: {error}",
                    kernel=binary.symbol,
                    stage="load",
                ) from error
        function = next(self._numbers)
        self._kernels[function] = kernel
        return _TritonLauncher(kernel, [i for i, type_ in enumerate(types) if type_ == "constexpr"]), function


class _TritonLauncher:
    """``kernel``: Triton's; ``constants``: places of its compiled-in arguments, which Triton's launchers step over."""

    def __init__(self, kernel: Any, constants: Sequence[int]) -> None:
        self._kernel = kernel
        self._constants = constants

    def __call__(self, grid_x: int, grid_y: int, grid_z: int, stream: Any, function: int, /, *args: Any) -> None:
        self._kernel[grid_x, grid_y, grid_z](*args[4:], stream=stream)

    def bind(self, grid_x: int, grid_y: int, grid_z: int, function: int, /) -> Callable[..., None]:
        run: Callable[..., None] = self._kernel[grid_x, grid_y, grid_z]
        if not self._constants:
            return run

        def with_constants(*args: Any) -> None:
            every = list(args)
            for place in self._constants:
                every.insert(place, None)
            run(*every)

        return with_constants
