"""The kernels of whole models, followed on symbols: numpy gives the bits that they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import torchport
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.runs.reader import Run
from torchport.numerics.trees.follow import follow
from torchport.numerics.trees.nodes import NONE
from torchport.numerics.trees.values import compute
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.numerics.verdicts.replay import Argument, Replay

ONE_FUNCTION = """module {
  tt.func public @f(%a: !tt.ptr<f32>, %b: !tt.ptr<f32>, %n: i32) attributes {noinline = false} {
    %c = arith.constant 64 : i32
    %p = tt.get_program_id x : i32
    %o = arith.muli %p, %c : i32
    %r = tt.make_range {end = 64 : i32, start = 0 : i32} : tensor<64xi32>
    %s = tt.splat %o : i32 -> tensor<64xi32>
    %i = arith.addi %s, %r : tensor<64xi32>
    %m = tt.splat %n : i32 -> tensor<64xi32>
    %k = arith.cmpi slt, %i, %m : tensor<64xi32>
    %q = tt.splat %a : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
    %v = tt.addptr %q, %i : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    %x = tt.load %v, %k : tensor<64x!tt.ptr<f32>>
    %y = FUNCTION
    %w = tt.splat %b : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
    %u = tt.addptr %w, %i : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    tt.store %u, %y, %k : tensor<64x!tt.ptr<f32>>
    tt.return
  }
}
"""


class Own(dict[str, Callable[..., Any]]):
    """The target's functions of f32 by name, each from a kernel that has it alone."""

    def get(self, name: str, default: Any = None) -> Any:
        if not name.endswith("_f32") and not name.startswith("math."):
            return default
        called = f"{name} %x : tensor<64xf32>"
        if name.endswith("_f32"):
            types = "(tensor<64xf32>) -> tensor<64xf32>"
            named = f'{{libname = "", libpath = "", pure = true, symbol = "{name}"}}'
            called = f"tt.extern_elementwise %x {named} : {types}"

        def run(x: np.ndarray) -> np.ndarray:
            given = torch.from_numpy(np.ascontiguousarray(x)).float().flatten()
            size = len(given)
            arguments = [
                Argument("a", "*fp32", None, 0, torch.float32, (size,), (1,)),
                Argument("b", "*fp32", None, 1, torch.float32, (size,), (1,)),
                Argument("n", "i32", size),
            ]
            kernel = Replay(ONE_FUNCTION.replace("FUNCTION", called), arguments, (-(-size // 64), 1, 1), trusted=True)
            return kernel.run({0: given, 1: torch.empty(size)})[1].double().numpy().reshape(np.shape(x))

        return run


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = torch.nn.Embedding(40, 32), torch.nn.LayerNorm(32)
        self.attention = torch.nn.MultiheadAttention(32, 4, batch_first=True)
        self.up, self.down = torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)
        self.groups, self.batch = torch.nn.GroupNorm(4, 32), torch.nn.BatchNorm1d(32)
        self.convolution, self.root = torch.nn.Conv1d(32, 16, 3), torch.nn.RMSNorm(16)

    def forward(self, words: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.words(words)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(x)))
        x = F.silu(self.convolution(self.batch(self.groups(x.transpose(1, 2))))).transpose(1, 2)
        x = self.root(x)
        return torch.log_softmax(x, -1).cumsum(1), x.amax(1), x.std(-1), F.softplus(x).bfloat16().sum(0), x.argmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kernels_of_a_model(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = torch.compile(Model().to(dtype), backend="torchport", dynamic=False)
    with torchport.record(tmp_path / "run", "full"):
        results = model(torch.randint(0, 40, (2, 11)))
        sum(one.float().sum() for one in results[:4]).backward()
    run = Run.load(tmp_path / "run")
    compared = 0
    for launch in {one.kernel: one for one in run.launches if one.kind == "kernel"}.values():
        replay, storages, _ = replay_of(run, launch)
        followed, after = follow(AlgebraLaunch.of(replay, storages)), replay.run(storages)
        for number, roots in followed.results.items():
            written = np.flatnonzero(roots != NONE)
            if len(written):
                found = compute(followed.nodes, roots, storages, Own())
                np.testing.assert_array_equal(found[written], after[number].double().numpy()[written])
                compared += 1
    assert compared > 40
