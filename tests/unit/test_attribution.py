"""What explains one bad output of a kernel with several."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from torchport.numerics.algebra.user_launch import launch_of
from torchport.numerics.verdicts.attribution import attribute_each
from torchport.numerics.verdicts.references import references
from torchport.numerics.verdicts.replay import Replay, view


@triton.jit
def two_sums(x, y, z, n, B: tl.constexpr):
    c = tl.arange(0, B)
    row = tl.program_id(0)
    v = tl.load(x + row * n + c, c < n, 0.0)
    tl.store(y + row, tl.sum(v * v, 0))
    tl.store(z + row, tl.sum(v, 0))


def test_one_bad_output_of_two_is_explained_alone() -> None:
    """A cause is tried by the size of its error, too, which is that of this output only."""
    x = torch.randn(16, 200, generator=torch.Generator().manual_seed(0))
    launch = launch_of(two_sums, (16,), {"x": x, "y": torch.zeros(16), "z": torch.zeros(16), "n": 200, "B": 256})
    replay = Replay(launch.ttir, launch.arguments, launch.grid, trusted=True)
    outputs = [one for one in launch.arguments if one.name in ("y", "z")]
    expected = references(replay, launch.storages, outputs)
    after = replay.run(launch.storages)
    right = {one.name: view(one, after[one.storage]) for one in outputs if one.storage is not None}
    wrong = {"y": right["y"] * (1 + 2**-9 * torch.sign(torch.randn(16)))}  # of no cause bit by bit
    found = attribute_each(replay, launch.storages, outputs, wrong, expected)
    assert set(found) == {"y"} and 0 <= found["y"].residual <= 1
