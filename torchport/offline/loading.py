"""Loads and launches kernels compiled by ``torchport build``, without compiling them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torchport.errors import ArtifactError
from torchport.offline.compilation import Artifact
from torchport.offline.manifest import read, read_manifest
from torchport.plugin import Driver, backend_for
from torchport.program.grid import MAX_BOUND
from torchport.runtime.cache import object_cache
from torchport.target import Target

__all__ = ["Artifacts", "Kernel", "install", "load"]


class Kernel:
    """One kernel of a folder, linked for its target. ``artifact`` has its types, block sizes and grid."""

    def __init__(self, artifact: Artifact, driver: Driver) -> None:
        assert artifact.binary is not None
        self.artifact = artifact
        self.arguments = tuple(name for name, type_ in artifact.types.items() if type_ != "constexpr")
        """Names of the arguments of ``launch``, in order: tensors, then sizes."""
        self._launcher, self._function = driver.load(artifact.binary, list(artifact.types.values()))
        self._bound: dict[tuple[int, int, int], Callable[..., None]] = {}

    def launch(self, *args: Any) -> None:
        """Launch over the grid that follows from the size arguments, as generated code does.

        ``args``: one for each of ``arguments``. Tensors are on the driver's device and have the strides of the captured
        example, which the generated indices assume. Raises ArtifactError for a wrong number of arguments.
        """
        if len(args) != len(self.arguments):
            names = ", ".join(self.arguments)
            raise ArtifactError(f"kernel {self.artifact.kernel} takes {len(self.arguments)} arguments: {names}")
        if self.artifact.grid is None:
            raise ArtifactError(f"kernel {self.artifact.kernel} has no grid: give one (run_over)")
        self.run_over(self.artifact.grid.of(args), *args)

    def run_over(self, grid: tuple[int, int, int], *args: Any) -> None:
        """Launch over a given grid: program instances in x, y and z."""
        bound = self._bound.get(grid)
        if bound is None:
            if len(self._bound) >= MAX_BOUND:
                self._bound.clear()
            bound = self._bound[grid] = self._launcher.bind(*grid, self._function)
        bound(*args)


class Artifacts(Mapping[str, Kernel]):
    """The kernels of one target by name, each linked at first use."""

    def __init__(self, artifacts: list[Artifact], driver: Driver, about: Mapping[str, Any]) -> None:
        self.about = about
        self._artifacts = {artifact.kernel: artifact for artifact in artifacts if artifact.binary is not None}
        self._driver = driver
        self._kernels: dict[str, Kernel] = {}

    def __getitem__(self, name: str) -> Kernel:
        if name not in self._kernels:
            self._kernels[name] = Kernel(self._artifacts[name], self._driver)
        return self._kernels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._artifacts)

    def __len__(self) -> int:
        return len(self._artifacts)


def load(folder: str | Path, target: str | Target) -> Artifacts:
    """Open the kernels of a folder for ``target``, to be linked and launched on this machine's device.

    The folder holds code that will be run: it must come from a trusted source. Raises ArtifactError if it has none for
    ``target`` (listing its targets) or is damaged, TargetError if ``target`` does not run here.
    """
    folder, target = Path(folder), Target.parse(target)
    about = {name: value for name, value in read_manifest(folder).items() if name != "artifacts"}
    return Artifacts(_of_target(folder, target), backend_for(target).driver(target), about)


def install(folder: str | Path, target: str | Target = "cpu") -> int:
    """Put a folder's kernels where torch.compile finds them, so that it compiles no kernel of the model.

    This works for kernels whose source comes out the same (same model, sizes, torch and torchport) and a target whose
    compiler is the one that built them. Returns the number of kernels. Raises as ``load`` does, and ArtifactError if
    another compiler built the folder.
    """
    folder, target = Path(folder), Target.parse(target)
    compiler = backend_for(target).compiler(target).fingerprint()
    built = read_manifest(folder).get("targets", {}).get(str(target), {}).get("compiler")
    if built != compiler:
        raise ArtifactError(f"{folder} was built for {target} by another compiler or for another chip; build it here")
    installed = 0
    for artifact in _of_target(folder, target):
        if artifact.binary is not None and artifact.cache_key:
            object_cache().put(artifact.cache_key, artifact.binary.pack())
            installed += 1
    return installed


def _of_target(folder: Path, target: Target) -> list[Artifact]:
    artifacts = read(folder, str(target))
    if not artifacts:
        available = ", ".join(dict.fromkeys(a.target for a in read(folder))) or "no target"
        raise ArtifactError(f"{folder} holds no kernels for {target}, only for {available}")
    return artifacts
