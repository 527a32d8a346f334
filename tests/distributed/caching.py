"""Functions of ranks: what of a graph comes from caches."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from compiling import Blocks, batches, compiled, train
from torch.nn.parallel import DistributedDataParallel

from torchport.runtime import events
from torchport.runtime.cache import object_cache
from torchport.runtime.cache_archive import export_caches, import_caches


def steps() -> tuple[int, int, int]:
    """Two steps of training; how many kernels were compiled and loaded, and how many graphs were compiled."""
    torch.manual_seed(0)
    model = Blocks(1)
    with events.capture() as found:
        call = compiled(DistributedDataParallel(model))
        train(call, list(model.parameters()), batches(dist.get_rank(), 2, dtype=torch.float32))
    kernels = [event for event in found if isinstance(event, events.Kernel)]
    new = sum(not kernel.cached for kernel in kernels)
    return new, len(kernels) - new, sum(isinstance(event, events.Graph) for event in found)


def write(folder: str) -> None:
    """The caches of this job in a file, and torch's artifacts of it in another."""
    found = torch.compiler.save_cache_artifacts()
    assert found is not None
    if dist.get_rank() == 0:
        export_caches(Path(folder, "caches"), object_cache())
        Path(folder, "artifacts").write_bytes(found[0])


def read(folder: str, name: str, trust: bool) -> None:
    """Fill this job's caches from a file, on every rank: they may share a folder or not."""
    path = Path(folder, name)
    if name == "caches":
        import_caches(path, object_cache(), trust=trust)
    else:
        assert torch.compiler.load_cache_artifacts(path.read_bytes()) is not None
