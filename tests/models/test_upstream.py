"""Programs to which stock Inductor gives another answer than eager, and what torchport's correction makes of them.

Each runs twice: with the correction, where the answer is eager's, and without it, where it is not on those versions of
torch that the correction names. When the second test fails, upstream has mended that kind, or has the fault again: the
correction's ``versions`` in ``corrections.py`` want a change, and where none is left, the correction can go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from functorch.experimental.control_flow import map as mapped
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

from torchport.compat import release
from torchport.inductor.upstream.corrections import CORRECTIONS, Correction, without


@dataclass(frozen=True)
class Program:
    """``run`` of fresh ``arguments``, compiled, is to give what it gives in eager mode, in results and arguments.

    ``reference``: runs in place of ``run`` in eager mode.
    ``tolerance``: relative; 0 for the same bits (of NaN: any NaN).
    ``gradients``: look at the gradient of the first argument, too.
    ``then``: what is done outside of compiled code with the results; the first argument's gradient is looked at.
    ``earlier``: values of the last argument, a number, that it is called with before.
    ``dynamic``, ``fullgraph``: as torch.compile takes them.
    """

    correction: str
    name: str
    run: Callable[..., Any]
    arguments: Callable[[], list[Any]]
    reference: Callable[..., Any] | None = None
    tolerance: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    gradients: bool = False
    then: Callable[..., None] | None = None
    earlier: tuple[float, ...] = ()
    dynamic: bool | None = None
    fullgraph: bool = True

    def outcome(self, run: Callable[..., Any]) -> Any:
        """Results and arguments after a run from one seed, and which share memory; ``raises`` if it raises."""
        arguments = self.arguments()
        torch.manual_seed(0)
        if self.gradients or self.then is not None:
            arguments[0].requires_grad_()
        try:
            for value in self.earlier:
                run(*arguments[:-1], value)
            result = run(*arguments)
            results = [value for value in torch.utils._pytree.tree_leaves(result) if isinstance(value, torch.Tensor)]
            if self.then is not None:
                self.then(result, *arguments)
            if self.gradients:
                (first,) = results
                first.backward(torch.linspace(-1, 1, first.numel()).reshape(first.shape))
        except (RuntimeError, IndexError, TypeError, ValueError):  # InductorError, torchport's and eager's own errors
            return "raises"
        if self.gradients or self.then is not None:
            results.append(torch.zeros(()) if arguments[0].grad is None else arguments[0].grad.clone())
        arguments = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
        shared = [r.untyped_storage().data_ptr() == a.untyped_storage().data_ptr() for r in results for a in arguments]
        return [*results, *arguments, torch.tensor(shared)]

    def expected(self) -> Any:
        """What eager gives."""
        return self.outcome(self.reference or self.run)

    def compiled(self) -> Any:
        """What torchport gives."""
        torch._dynamo.reset()
        settings: dict[str, Any] = {"backend": "torchport", "fullgraph": self.fullgraph, "dynamic": self.dynamic}
        return self.outcome(torch.compile(self.run, **settings, options=dict(self.options)))


def same(got: Any, want: Any, tolerance: float) -> bool:
    if isinstance(got, str) or isinstance(want, str):
        return isinstance(got, str) and isinstance(want, str)
    for g, w in zip(got, want, strict=True):
        if g.dtype != w.dtype or g.shape != w.shape:
            return False
        g, w = g.detach().resolve_conj(), w.detach().resolve_conj()
        if not torch.allclose(g, w, rtol=tolerance, atol=0.0, equal_nan=True):
            return False
    return True


# Values read after a later write


def halves(x: torch.Tensor) -> torch.Tensor:
    y = x.view(torch.int32) + 1
    y.mul_(3)
    x[:, 1:4] = 7
    return y.view(torch.int64)


def moved(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    target[:] = source[:]
    source.add_(5)
    return target.sum()


def shifted(x: torch.Tensor) -> torch.Tensor:
    x[1:].copy_(x[:-1].clone())
    return x.sum()


def reversed_in_place(x: torch.Tensor) -> torch.Tensor:
    return x.copy_(x.view(-1).flip(0).view(x.shape))


def pooled(x: torch.Tensor) -> Any:
    return F.max_pool2d(x, 3, 2, 1, return_indices=True)


def pooled_widely(x: torch.Tensor) -> Any:
    return F.max_pool2d(x, 6, 2, 2, return_indices=True), F.max_pool3d(x, (2, 5, 5), 1, (1, 2, 1), return_indices=True)


def with_nans() -> list[torch.Tensor]:
    x = ramp(2, 3, 7, 9).sin()
    x[:, :, 1, 1:3] = x[0, 0, 2, 2] = x[1, 2, 5, :] = math.nan
    return [x]


def scattered(x: torch.Tensor, values: torch.Tensor) -> Any:
    rows = x.unfold(0, 2, 1)
    return torch.slice_scatter(rows, values, 0, 0, 3), torch.select_scatter(rows, values[0], 0, 1)


def updated(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    new = torch.slice_scatter(x, values, 0, 1, 3)
    x.copy_(new)
    return new


def selected(x: torch.Tensor) -> Any:
    y = torch.select_scatter(x, x[0] * 2, 0, 1)
    x.copy_(torch.select_scatter(y, x[2], 0, 0))
    return y


def tiled_after(x: torch.Tensor, y: torch.Tensor) -> Any:
    both = torch.stack([y, y], 1)
    y[-1].add_(y[0])
    tiled = y.tile(2)
    x[..., 0] += 1
    return both, tiled


def repeated(x: torch.Tensor) -> Any:
    largest = x.topk(1, -1)[0]
    twice = torch.hstack([largest.reshape(-1)] * 2)
    largest[largest > 0] = 0
    return twice, largest


def put_twice(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
    z = torch.zeros(4, 5)
    z[i] = x
    z[z > 7] = 0
    return z * 2


def increased(x: torch.Tensor) -> torch.Tensor:
    x.add_(1)
    return x * 2


def swapped(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    old = x.clone()
    x.copy_(y)
    y.copy_(old)
    return x - y


def indexed(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
    x[i] = x[:3].clone()
    return x * 1


def marked(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
    x[i] += 1
    y = x.clone()
    x.index_fill_(0, i + 1, 5)
    return y


@torch.library.custom_op("torchport_tests::shift_right", mutates_args=("into",))
def shift_right(source: torch.Tensor, into: torch.Tensor) -> None:
    for i in range(source.shape[0] - 1):
        into[i + 1] = source[i]


def by_operator(x: torch.Tensor) -> torch.Tensor:
    shift_right(x.clone(), x)
    return x + 1


@triton.jit
def reverse(source, into, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(into + (n - 1 - i), tl.load(source + i, mask=i < n), mask=i < n)


def by_kernel(x: torch.Tensor) -> torch.Tensor:
    n = x.shape[0]
    reverse[(triton.cdiv(n, 64),)](x.clone(), x, n, BLOCK=64)
    return x * 2


# User-defined kernels


@triton.jit
def log_sum_exp(x, out, n, temperature, BLOCK: tl.constexpr):
    top = float("-inf")
    total = 0.0
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        v = tl.load(x + i, mask=i < n, other=float("-inf")) / temperature
        new = tl.maximum(top, tl.max(v, 0))
        total = total * tl.exp(top - new) + tl.sum(tl.exp(v - new), 0)
        top = new
    tl.store(out, top + tl.log(total))


def tempered(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty(1)
    log_sum_exp[(1,)](x, out, x.numel(), 0.7, BLOCK=32)
    return out


@triton.jit
def fill(out, n, number, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, number, mask=i < n)


def shares(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    fill[(1,)](out, x.numel(), 1 / x.numel(), BLOCK=64)
    return out + x


@triton.jit
def add_to_both(x, a, b, n, step, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i, mask=i < n)
    tl.store(a + i * step, tl.load(a + i * step, mask=i < n) + v, mask=i < n)
    tl.store(b + i * step, tl.load(b + i * step, mask=i < n) + 2 * v, mask=i < n)


def both_rows(x: torch.Tensor) -> torch.Tensor:
    rows = torch.full((2, x.numel()), 3.0)
    add_to_both[(1,)](x, rows[0], rows[1], x.numel(), 1, BLOCK=64)
    return rows.sum(0)


def middle_column(x: torch.Tensor) -> torch.Tensor:
    columns = x[:, None] + torch.arange(3)
    add_to_both[(1,)](columns[:, 0].contiguous(), *[columns[:, 1]] * 2, x.numel(), 3, BLOCK=64)
    return columns * 2


def both_halves(x: torch.Tensor) -> torch.Tensor:
    parts = x.repeat(2) + 1
    first, second = parts.chunk(2)
    add_to_both[(1,)](first, first, second, x.numel(), 1, BLOCK=64)
    return parts


def one_row_twice(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    add_to_both[(1,)](x, rows[0], rows[0], x.numel(), 2, BLOCK=64)
    return rows.sum()


def row_and_copy(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    add_to_both[(1,)](x, rows[1], rows[1].clone(), x.numel(), 1, BLOCK=64)
    return rows.sum()


def exchanged(x: torch.Tensor) -> torch.Tensor:
    torch._foreach_copy_([x[0], x[1]], [x[1], x[0]])
    return x + 1


def added_in_turn(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    torch._foreach_add_([y, y[1], y[0]], [y, y[0], y[1]], alpha=2)
    return y


def looped(x: torch.Tensor) -> torch.Tensor:
    def condition(i: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return i < 4

    def body(i: torch.Tensor, x: torch.Tensor) -> Any:
        return i + 1, x * 0.9 + 0.1

    result: torch.Tensor = while_loop(condition, body, (torch.tensor(0), x))[1].sum()
    return result


def unrolled(x: torch.Tensor) -> torch.Tensor:
    for _ in range(4):
        x = x * 0.9 + 0.1
    return x.sum()


def drawn(x: torch.Tensor) -> Any:
    first = torch.randint(0, 100, (4, 1))
    torch.randint(0, 100, (2, 1))
    return first, torch.randint(0, 1000, (3,)), x + torch.rand(5)


def rows(x: torch.Tensor) -> torch.Tensor:
    return (torch.arange(70000)[:, None] * 65536 + torch.arange(2)).sum(0) + x


def padded(x: torch.Tensor) -> Any:
    y = x + 1
    return y, F.pad(y, (-1, 1), value=2)


def rolled(x: torch.Tensor) -> torch.Tensor:
    chosen = torch.where(torch.arange(x.shape[-1]) % 3 == 0, x.flip(-1), x)
    return chosen.roll([0, -16, 1000], [2, 1, 0]).flip([2])


def squares(x: torch.Tensor) -> torch.Tensor:
    i = torch.arange(70000)
    return (i * i)[-3:] + x


def multiplied(x: torch.Tensor) -> Any:
    y = x * x
    return y, y / x, torch.isinf(y), torch.where(torch.isinf(y), torch.zeros_like(y), y)


INF, NAN = float("inf"), float("nan")
DIVIDENDS = [
    1.0,
    0.5,
    0.7,
    4.9,
    -0.7,
    3.0,
    26.999998,
    13.999999,
    148.0,
    1073.0,
    INF,
    -INF,
    NAN,
    1.0,
    -1.0,
    0.0,
    -0.0,
    5,
]
DIVISORS = [0.1, 0.1, 0.1, 0.7, 0.1, -0.3, 3.0, 7.0, 37.0, 37.0, 1.0, 1.0, 1.0, INF, INF, 3.0, 3.0, 0.0]


def divisions(x: torch.Tensor, y: torch.Tensor) -> Any:
    return x // y, torch.div(x, y, rounding_mode="floor"), torch.div(x, y, rounding_mode="trunc"), x % y, x // 0.1


def narrowed(x: torch.Tensor) -> Any:
    i = torch.arange(300)
    return i.bool().int() + x, i.to(torch.uint8).long() + x, (i.to(torch.int8) * 100).float(), x[i.bool().long()]


def rounded_indices(x: torch.Tensor) -> Any:
    i = torch.arange(5000)
    return i.half().long() + x[0], i.bfloat16().float(), (i.int() * 700000) // 2, i // INF, (i + 2**24).float().long()


def written(x: torch.Tensor) -> Any:
    old = x.sum()
    x[1].add_(2)
    return old, x * 3


def accumulated(x: torch.Tensor) -> Any:
    return scan(lambda total, row: (total * 0.5 + row, total * row), x.sum(0), x)[1]


def accumulated_rows(x: torch.Tensor) -> torch.Tensor:
    total, rows = x.sum(0), []
    for row in x:
        rows.append(total * row)
        total = total * 0.5 + row
    return torch.stack(rows)


def tokens(images: torch.Tensor) -> torch.Tensor:
    return F.conv2d(images, torch.full((8, 3, 3, 3), 0.01), stride=2, padding=1).flatten(2).transpose(1, 2)


def images_again(images: torch.Tensor) -> torch.Tensor:
    mixed = (tokens(images) @ torch.ones(8, 8)).relu()
    turned = mixed.transpose(1, 2).unflatten(2, [size // 2 for size in images.shape[2:]])
    return F.conv2d(turned, torch.ones(8, 8, 1, 1)) * turned.exp()


def low_frequencies(images: torch.Tensor) -> torch.Tensor:
    spectrum, weights = torch.fft.rfft2(images), torch.ones(4, 4, 2, 2) + 1j
    mixed = torch.zeros_like(spectrum)
    for rows in (slice(None, 2), slice(-2, None)):
        mixed[:, :, rows, :2] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, rows, :2], weights)
    return F.gelu(torch.fft.irfft2(mixed, s=images.shape[-2:]) + F.conv2d(images, torch.ones(4, 4, 1, 1)))


def of_16_bits(x: torch.Tensor, y: torch.Tensor) -> Any:
    quotient = torch.div(x, y, rounding_mode="trunc")
    return quotient, torch.div(x, 0.1, rounding_mode="trunc"), x // y, x % 0.1, torch.fmod(x, 0.7), 0.7 % y, x % y


def copied_twice(x: torch.Tensor) -> torch.Tensor:
    y = x.clone().t()
    y.copy_(y)
    return y


def with_detached(x: torch.Tensor) -> Any:
    y = x.sum(-1, keepdim=True)
    return y[0], y.detach(), y.abs()


def write_weights(result: torch.Tensor, x: torch.Tensor, weights: torch.Tensor) -> None:
    with torch.no_grad():
        weights.zero_()
    result.sum().backward()


def write_indices(result: Any, x: torch.Tensor) -> None:
    smallest, indices = result
    indices.zero_()
    smallest.sum().backward()


def rewritten(x: torch.Tensor) -> torch.Tensor:
    x = x * 2
    torch._dynamo.graph_break()
    y = torch.sinh(x * 0.1)
    x[0] = 1
    return y


def differentiated(result: torch.Tensor, x: torch.Tensor) -> None:
    result.sum().backward()


def pairs(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(x * 2)


def conjugated(result: torch.Tensor, x: torch.Tensor) -> None:
    (result.conj() * (1 + 2j)).imag.sum().backward()


def filled(x: torch.Tensor) -> Any:
    x.masked_fill_(x > 6, 2)
    x.t().reshape(-1)[1] = 50
    return x.as_strided((4,), (1,), 1) + 0.5


def turned(x: torch.Tensor) -> Any:
    y = x * 2
    y.t_()
    z = y + 1
    z.unsqueeze_(0)
    return torch.ones(2) * y.shape[0], z.sum() * z.dim(), x.index_add(0, torch.arange(7)[:1] % z.shape[0], x[2:3])


def stepped(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nextafter(x, y)


def steps(dtype: torch.dtype) -> list[torch.Tensor]:
    """Numbers of every kind, against each other."""
    inf, tiny = torch.inf, torch.finfo(dtype).smallest_normal
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, tiny, -tiny / 2, inf, -inf, torch.nan, 3.5], dtype=dtype)
    return [values[:, None], values[None, :]]


def doubled(x: torch.Tensor) -> torch.Tensor:
    product = x @ x
    return torch.add(product, product, alpha=2)


def lower(x: torch.Tensor) -> Any:
    x.tril_().scatter_(0, torch.tensor([[0, 1, 0]]), 9.0)
    return x.as_strided((4,), (1,), 1) + 0.5


def uint8(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)


def far_first() -> torch.Tensor:
    """Rows whose first value is far from the others, or the only one that is not 0; in one it is 0 alone."""
    x = torch.cat((torch.full((8, 1), 1e8), 1e4 + torch.arange(8 * 299).remainder(17).view(8, 299)), 1)
    x[3, 1:], x[4, 0], x[5, 1:] = 0.0, 0.0, 1e8
    return x


def spread(scale: float, *shape: int) -> Callable[[], list[torch.Tensor]]:
    def make() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        return [(torch.randn(shape or (3, 40), dtype=torch.float64, generator=generator) * scale).float()]

    return make


def ramp(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = int(torch.Size(shape).numel())
    return torch.arange(count, dtype=dtype).reshape(shape)


def rows_of_written(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x[1:].copy_(y[:-1] * 2)
    y[2:] = x[:-2] + 1
    return x[5], x.view(3, 3)[1], x.split(4)[1], y[::2], y[3]


def warmed(x: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    return ((x @ x.transpose(-2, -1)) / temperature + x[..., :1]).softmax(-1) @ x


PROGRAMS = [
    Program("scale-nodes", "learned", warmed, lambda: [torch.randn(2, 3, 9, 8), torch.tensor(1.7)], tolerance=1e-5),
    Program("old-values", "dtype view", halves, lambda: [ramp(4, 5, dtype=torch.int64) - 9]),
    Program("old-values", "source changed later", moved, lambda: [torch.zeros(33), ramp(33)]),
    Program("old-values", "shift of itself", shifted, lambda: [ramp(5000)]),
    Program("old-values", "reversed into itself", reversed_in_place, lambda: [ramp(61, 32)]),
    Program("old-values", "result is an input", updated, lambda: [ramp(4, 3), torch.full((2, 3), 50.0)]),
    Program("old-values", "custom operator", by_operator, lambda: [ramp(16)]),
    Program("old-values", "result of an earlier write", marked, lambda: [ramp(6), torch.tensor([0, 2])]),
    Program("old-values", "user-defined kernel", by_kernel, lambda: [ramp(1000)]),
    Program("any-of-uint8", "any", lambda x: torch.any(x) * 250 + 20, lambda: [uint8(0, 7, 0)]),
    Program("any-of-uint8", "any along a dimension", lambda x: x.any(0), lambda: [uint8(0, 7, 0)]),
    Program("ldexp-dtype", "bool, float16", torch.ldexp, lambda: [ramp(4) > 1, ramp(4).half()]),
    Program("ldexp-dtype", "float16, float32", torch.ldexp, lambda: [ramp(4).half() / 2, ramp(4)]),
    Program("float-floor-division", "float32", divisions, lambda: [torch.tensor(DIVIDENDS), torch.tensor(DIVISORS)]),
    Program(
        "float-floor-division",
        "float64",
        divisions,
        lambda: [torch.tensor(DIVIDENDS, dtype=torch.float64), torch.tensor(DIVISORS, dtype=torch.float64)],
    ),
    Program("typed-indices", "narrow", narrowed, lambda: [ramp(300)]),
    Program("typed-indices", "rounded", rounded_indices, lambda: [ramp(1).long()]),
    Program("negated-inputs", "read and written", written, lambda: [torch._neg_view(ramp(4, 3))], tolerance=1e-6),
    Program(
        "loop-counters",
        "scan",
        accumulated,
        lambda: [ramp(5, 3) / 9],
        accumulated_rows,
        1e-5,
        gradients=True,
        fullgraph=False,
    ),
    Program(
        "loop-counters",
        "map",
        lambda x: mapped(lambda row, y: row.sin() * y, x, torch.ones(3)),
        lambda: [ramp(5, 3)],
        torch.sin,
        tolerance=1e-5,
        gradients=True,
        fullgraph=False,
    ),
    Program("division-of-16-bits", "float16", of_16_bits, lambda: [ramp(90).half() / 9, ramp(90).half() / 7 + 0.1]),
    Program("division-of-16-bits", "bfloat16", of_16_bits, lambda: [*ramp(2, 90).bfloat16() / 7 + 0.3]),
    Program(
        "negative-indices",
        "selection",
        lambda x, i: x.index_select(0, i),
        lambda: [ramp(5), torch.tensor([0, -1])],
    ),
    Program(
        "negative-indices",
        "sum",
        lambda x, i: x.index_add(0, i, x[1:3]),
        lambda: [ramp(5), torch.tensor([0, -1])],
    ),
    Program(
        "negative-indices",
        "copy",
        lambda x, i: x.index_copy(1, i, x[:, :1]),
        lambda: [ramp(5, 3), torch.tensor([-1])],
    ),
    Program("division-by-zero", "floor", lambda x, y: x // y, lambda: [torch.tensor([5, 7]), torch.tensor([2, 0])]),
    Program("division-by-zero", "remainder", lambda x, y: x % y, lambda: [uint8(5, 7), uint8(2, 0)]),
    Program("division-by-zero", "not used", lambda x, y: (x // y)[:1], lambda: [uint8(5, 7), uint8(2, 0)]),
    Program("division-by-zero", "constant", lambda x: torch.fmod(x, 0), lambda: [torch.tensor([5, 7])]),
    Program("shifts", "0-dim", lambda x, n: x >> n, lambda: [torch.tensor(1000), torch.tensor(64)]),
    Program("variance-in-float64", "large", lambda x: x.std(1), spread(1e30), tolerance=1e-5),
    Program(
        "variance-in-float64", "two dims", lambda x: torch.std_mean(x, (0, 2)), lambda: [far_first().view(8, 6, 50)]
    ),
    Program("variance-in-float64", "infinite", lambda x: x.var(1), lambda: [far_first().log().neg()]),
    Program("variance-in-float64", "small", lambda x: x.std(1), spread(1e-30), tolerance=1e-5),
    Program("variance-in-float64", "gradient", lambda x: x.std(1), spread(1e30), tolerance=1e-3, gradients=True),
    Program("scan-of-scalar", "constant", lambda: torch.tensor(2.5).cumsum(0), lambda: []),
    Program("scan-of-scalar", "bool", lambda: torch.tensor(True).cumsum(0), lambda: []),
    Program(
        "average-pooling-gradient",
        "1-D",
        lambda x: F.avg_pool1d(x, 3, 3, ceil_mode=True),
        lambda: [ramp(1, 2, 8)],
        tolerance=1e-6,
        gradients=True,
    ),
    Program(
        "average-pooling-gradient",
        "2-D",
        lambda x: F.avg_pool2d(x, 3, 2, padding=1, ceil_mode=True),
        lambda: [ramp(1, 2, 8, 7)],
        tolerance=1e-5,
        gradients=True,
    ),
    Program("index-values", "sum", rows, lambda: [torch.zeros(1).long()]),
    Program("index-values", "dividend", lambda x: x[(torch.arange(60000) * 40000) % 97], lambda: [torch.arange(97)]),
    Program("index-values", "product", lambda x: torch.arange(13) * 1700000000 + x, lambda: [torch.zeros(1).long()]),
    Program(
        "strided-views",
        "of a view",
        lambda x: torch.as_strided((x * 2)[1:], (2, 3), (3, 1), 1) + 1,
        lambda: [ramp(4, 3)],
    ),
    Program("strided-views", "outside", lambda x: torch.as_strided(x * 2, (3, 9), (9, 1)) + 1, lambda: [ramp(6)]),
    Program("strided-views", "outside of an input", lambda x: x.as_strided((3, 9), (9, 1)) + 1, lambda: [ramp(6)]),
    Program("random-order", "draws", drawn, lambda: [ramp(5)], options={"fallback_random": True}),
    Program("scalars-in-memory", "loop", looped, lambda: [ramp(3, 8)], unrolled, 1e-6, gradients=True),
    Program("expanded-carries", "sum", looped, lambda: [ramp(3, 8)], unrolled, 1e-6, gradients=True),
    Program("float-arguments", "of a size", shares, lambda: [ramp(9)], dynamic=True),
    Program("float-arguments", "loop", tempered, lambda: [ramp(100) / 9], tolerance=1e-6),
    Program(
        "scaled-integers",
        "softmax",
        lambda x: F.softmax(x * 1.0, -1),
        lambda: [torch.tensor([[1, 200, 3], [255, 0, 7]], dtype=torch.uint8)],
        tolerance=1e-6,
    ),
    Program("scalar-writes", "float64", increased, lambda: [torch.tensor(3.0, dtype=torch.float64)]),
    Program(
        "scalars-read-once",
        "alpha",
        lambda x, s: (x * s, torch.add(x, x, alpha=s)),
        lambda: [ramp(9), 0.125],
        earlier=(0.5, 0.25),
        tolerance=1e-6,
    ),
    Program("scaled-bools", "add", lambda x: torch.add(x, x, alpha=2) // 3, lambda: [torch.tensor([True, False])]),
    Program("known-bools", "isnan", lambda x: torch.minimum(x.isnan(), x.isnan()), lambda: [torch.arange(3)]),
    Program(
        "integer-thresholds", "large", lambda x: F.threshold(x, 0.5, -1.5), lambda: [torch.tensor([-1, 0, 2**60 + 1])]
    ),
    Program(
        "soft-margin-gradient",
        "large",
        lambda x: F.soft_margin_loss(x, torch.ones(3), reduction="none"),
        lambda: [torch.tensor([0.5, 14.0, 30.0])],
        tolerance=1e-6,
        gradients=True,
    ),
    Program(
        "integer-linspace",
        "ends",
        lambda: [torch.linspace(a, b, 50, dtype=torch.int64) for a, b in ((4.3, -3), (0, 7), (50, 4.3))],
        list,
    ),
    Program("complex-lerp", "numbers", lambda x: (x.lerp(-x, 0.4j), x.lerp(-x, 2 + 1j)), lambda: [torch.randn(7) + 1j]),
    Program("complex-order", "tile", tiled_after, lambda: [ramp(66, 33), ramp(4, 16) * (1 + 1j)], tolerance=1e-5),
    Program("masked-puts", "view", repeated, lambda: [ramp(4, 3)]),
    Program("masked-puts", "rows", put_twice, lambda: [ramp(3, 5), torch.tensor([0, 2, 1])]),
    Program("empty-complex", "sum", lambda x: x[:0] + x[:0], lambda: [torch.randn(3, 4) + 1j]),
    Program(
        "logcumsumexp-in-float64",
        "gradient",
        lambda x: x.logcumsumexp(0),
        lambda: [torch.randn(20000, generator=torch.Generator().manual_seed(1))],
        tolerance=3e-4,
        gradients=True,
    ),
    Program("scans-in-float64", "sum over rows", lambda x: x.cumsum(0), spread(1.0, 4097, 16), tolerance=2e-7),
    Program(
        "scans-in-float64",
        "product",
        lambda x: (1 + x / 64).cumprod(0),
        spread(1.0, 4097, 3),
        tolerance=4e-7,
    ),
    Program(
        "overlapping-results",
        "unfold",
        lambda x: x.sin().t().unfold(1, 3, 1),
        lambda: [ramp(5, 7)],
        tolerance=1e-5,
        gradients=True,
    ),
    Program("masked-stores", "pad", padded, lambda: [torch.tensor([[-5.0], [3.0]])]),
    Program("masks-of-values", "flip of a rolled selection", rolled, lambda: [ramp(7, 31, 13)], dynamic=False),
    Program("sizes-in-float64", "quotient", lambda x, n: x * (1 / n), lambda: [ramp(5).double(), 7], dynamic=True),
    Program(
        "sizes-in-float64",
        "functions",
        lambda x, n: (torch.full_like(x, math.sqrt(n)), torch.full_like(x, math.sin(n))),
        lambda: [ramp(5).double(), 7],
        tolerance=1e-15,
        dynamic=True,
    ),
    Program("variance-in-float64", "of integers", torch.var, lambda: [ramp(4).long()]),
    Program("variance-in-float64", "of nothing", torch.var_mean, lambda: [torch.zeros(0)]),
    Program("listed-writes", "copy", exchanged, lambda: [ramp(2, 9)]),
    Program("listed-writes", "add", added_in_turn, lambda: [ramp(2, 9)], dynamic=True),
    Program("written-views", "rows", both_rows, lambda: [ramp(40)]),
    Program("written-views", "column", middle_column, lambda: [ramp(40)], dynamic=True),
    Program("written-views", "chunks", both_halves, lambda: [ramp(40)]),
    Program("written-views", "one twice", one_row_twice, lambda: [ramp(40), ramp(5, 100)[1:4, ::2]]),
    Program("eager-rounding", "overflow", multiplied, lambda: [torch.full((40,), 290.0, dtype=torch.float16)]),
    Program(
        "eager-rounding", "of products", lambda x: ((x * x).float(), (x * 7).long()), lambda: [ramp(49).half() / 7]
    ),
    Program("eager-rounding", "casts", lambda x: (x.bfloat16().float() - x).abs(), lambda: [ramp(49) / 7]),
    Program(
        "complex-moves",
        "strides",
        torch.view_as_complex,
        lambda: [ramp(3, 4, 2).transpose(0, 1)],
    ),
]

PROGRAMS += [
    Program("copied-results", "view between", lambda x: x.clone().t().clone(), lambda: [ramp(3, 4)]),
    Program("copied-results", "written", copied_twice, lambda: [ramp(3, 4)]),
    Program("detached-results", "sum", with_detached, lambda: [ramp(3, 4)], then=lambda r, x: r[0].sum().backward()),
    Program("saved-views", "indices", lambda x: x.min(0), lambda: [-ramp(8)], then=write_indices),
    Program(
        "saved-inputs", "of a graph", rewritten, lambda: [ramp(4, 3)], None, 1e-5, then=differentiated, fullgraph=False
    ),
    Program("lazy-gradients", "sgn", torch.sin, lambda: [ramp(4)], then=lambda y, x: y.sgn().sum().backward()),
    Program("lazy-gradients", "conj", pairs, lambda: [ramp(4, 2)], then=conjugated),
    Program(
        "interpolated-bytes",
        "size",
        lambda x: F.interpolate(x, (29, 31), mode="bilinear") + 1,
        lambda: [(ramp(2, 3, 17, 13) * 7).to(torch.uint8)],
    ),
    Program(
        "interpolated-bytes",
        "scale",
        torch.nn.Upsample(scale_factor=1.7, mode="bilinear", align_corners=True),
        lambda: [(ramp(2, 3, 17, 13) * 7).to(torch.uint8).to(memory_format=torch.channels_last)],
        dynamic=True,
    ),
    Program("scaled-sums", "addmm", lambda x, y: torch.add(x @ y, y[0], alpha=2), lambda: [*ramp(2, 3, 3)]),
    Program("scaled-sums", "other side", lambda x, y: torch.add(y, x @ y, alpha=0.5), lambda: [*ramp(2, 3, 3)]),
    Program("scaled-sums", "of one", doubled, lambda: [ramp(3, 3)]),
    Program("scaled-sums", "integers", lambda x, y: torch.add(x @ y, y, alpha=-3), lambda: [*ramp(2, 3, 3).int()]),
    Program("narrow-nextafter", "float16", stepped, lambda: steps(torch.float16)),
    Program(
        "narrow-nextafter", "bfloat16, another dtype", stepped, lambda: [torch.tensor(1.0), steps(torch.bfloat16)[1]]
    ),
    Program(
        "typed-sums",
        "of constants",
        lambda: [torch.full((2, 300), 1.7).cumsum(1, dtype=t) for t in (torch.float64, torch.uint8, torch.int32)],
        list,
    ),
    Program("softmax-of-scalar", "scaled", lambda x: (x * 1.0).softmax(0).log_softmax(-1), lambda: [torch.tensor(3.0)]),
    Program(
        "stride-remainders",
        "tokens",
        lambda x: tokens(x) @ torch.ones(8, 8),
        lambda: [ramp(2, 3, 16, 16) / 99],
        tolerance=1e-5,
        gradients=True,
        dynamic=True,
    ),
    Program(
        "symbolic-orders",
        "tokens and images",
        images_again,
        lambda: [ramp(2, 3, 8, 8) / 999],
        tolerance=1e-5,
        gradients=True,
        dynamic=True,
    ),
    Program(
        "complex-strides",
        "low frequencies",
        low_frequencies,
        lambda: [ramp(2, 4, 8, 6) / 99],
        tolerance=1e-4,
        gradients=True,
        dynamic=True,
    ),
    Program("sizes-in-place", "read", turned, lambda: [ramp(4, 3)]),
    Program("written-strides", "masked_fill_", filled, lambda: [ramp(4, 3).t()]),
    Program("written-strides", "tril_", lower, lambda: [ramp(4, 3).t()]),
    Program("placed-maxima", "padding", pooled, lambda: [torch.full((1, 2, 5, 7), -math.inf)]),
    Program("placed-maxima", "nan", pooled, with_nans),
    Program("placed-maxima", "large windows", pooled_widely, with_nans),
    Program("placed-maxima", "bytes", pooled, lambda: [torch.zeros(1, 1, 5, 7, dtype=torch.uint8)]),
    Program("placed-maxima", "adaptive", lambda x: F.adaptive_max_pool2d(x, 4, return_indices=True), with_nans),
    Program("overlapping-scatters", "slice", scattered, lambda: [ramp(6), ramp(3, 2)]),
]

RIGHT_ANYWAY = [
    Program("old-values", "select", selected, lambda: [ramp(4, 3)]),
    Program("old-values", "views of what is written", rows_of_written, lambda: [ramp(9), -ramp(9)]),
    Program("old-values", "swap", swapped, lambda: [ramp(40), -ramp(40)]),
    Program("old-values", "indices", indexed, lambda: [ramp(9), torch.tensor([1, 2, 8])]),
    Program(
        "shifts",
        "bytes",
        lambda x, n: (x << n, x >> n),
        lambda: [torch.tensor([100, -100, 1], dtype=torch.int8)[:, None], torch.arange(12, dtype=torch.int8) - 1],
    ),
    Program("written-views", "copy", row_and_copy, lambda: [ramp(40), ramp(3, 40)]),
    Program("ldexp-dtype", "float16, int64", torch.ldexp, lambda: [ramp(4).half() / 3, ramp(4).long()]),
    Program("typed-indices", "minus infinity", lambda x: torch.arange(5) / -torch.inf + x, lambda: [ramp(5)]),
    Program("negated-inputs", "conjugate", lambda x: (x.real.zero_(), x + 1)[1], lambda: [(ramp(3) * 1j + 1).conj()]),
    Program("index-values", "square", squares, lambda: [torch.zeros(1).long()]),
    Program("shifts", "constants", lambda x: (x << 3, x >> 2), lambda: [ramp(20).int()]),
    Program(
        "eager-rounding", "lerp", torch.lerp, lambda: [*torch.randn(2, 999).bfloat16(), torch.tensor(0.3).bfloat16()]
    ),
    Program("scan-of-scalar", "argument", lambda x: (x.cumsum(0), x.cummax(0)), lambda: [torch.tensor(1.5)]),
    Program("variance-in-float64", "far first", lambda x: x.var(1), lambda: [far_first()], tolerance=1e-6),
    Program("variance-in-float64", "layer norm", lambda x: F.layer_norm(x, (40,)), spread(1.0), tolerance=1e-4),
    Program(
        "saved-views", "weights", lambda x, w: (x @ w.t()).tanh(), lambda: [*ramp(2, 3, 3) / 9], then=write_weights
    ),
    Program("division-by-zero", "empty", lambda x, y: x // y, lambda: [ramp(0).long(), torch.tensor(0)]),
    Program("complex-moves", "128 bits", torch.view_as_complex, lambda: [ramp(3, 4, 2).double().transpose(0, 1)]),
]
"""Of the same kinds, with a right answer in stock Inductor too (today)."""


def label(program: Program) -> str:
    return f"{program.correction}: {program.name}"


@pytest.mark.parametrize("program", [*PROGRAMS, *RIGHT_ANYWAY], ids=label)
def test_the_answer_is_eagers(program: Program) -> None:
    assert same(program.compiled(), program.expected(), program.tolerance)


@pytest.mark.parametrize("program", PROGRAMS, ids=label)
def test_stock_inductor_is_wrong_where_the_table_says_so(program: Program) -> None:
    with without(program.correction):
        stock = program.compiled()
    version = ".".join(map(str, release("torch")))
    is_wrong = not same(stock, program.expected(), program.tolerance)
    message = f"torch {version} is {'wrong' if is_wrong else 'right'} in {program.correction}: {program.name}"
    assert is_wrong == (version in CORRECTIONS[program.correction].versions), message


def test_every_correction_has_a_program() -> None:
    assert {program.correction for program in PROGRAMS} == set(CORRECTIONS)


def test_only_known_corrections_can_be_turned_off() -> None:
    with pytest.raises(KeyError, match="no correction is called no-such-thing"), without("no-such-thing"):
        pass


@pytest.mark.parametrize("correction", CORRECTIONS.values(), ids=lambda correction: correction.name)
def test_the_page_lists_every_correction(correction: Correction) -> None:
    root = Path(__file__).parents[2]
    assert (root / "torchport" / "inductor" / correction.module).is_file()
    assert correction.row() in (root / "docs" / "upstream.md").read_text()
