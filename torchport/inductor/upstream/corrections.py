"""The table of corrections: what is reported, what stock Inductor does, what torchport does, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["CORRECTIONS", "Correction", "applies", "tag", "without"]


@dataclass(frozen=True)
class Correction:
    """One kind of wrong answer, and how torchport avoids it.

    ``name``: as ``applies`` and ``without`` take it.
    ``module``: the file that holds it, below torchport/inductor.
    ``reports``: of pytorch/pytorch unless another repository is named; empty where torchport's own search found it.
    ``stock``: what stock Inductor does.
    ``ours``: what torchport does.
    ``cost``: what that costs, where and how much.
    ``versions``: of torch that need it, of those that torchport supports; its tests say so on each of them.
    """

    name: str
    module: str
    reports: tuple[str, ...]
    stock: str
    ours: str
    cost: str = "none measurable"
    versions: tuple[str, ...] = ("2.11", "2.12", "2.13")

    def row(self) -> str:
        """Its row in docs/upstream.md."""
        reports = ", ".join(self.reports)
        where = f"[{self.module}](../torchport/inductor/{self.module})"
        cells = (f"`{self.name}`", reports, self.stock, self.ours, self.cost, where, self._releases())
        return f"| {' | '.join(cells)} |"

    def _releases(self) -> str:
        first, *others = self.versions
        return f"{first} to {others[-1]}" if len(others) > 1 else ", ".join(self.versions)


CORRECTIONS: dict[str, Correction] = {
    correction.name: correction
    for correction in (
        Correction(
            "old-values",
            "upstream/aliasing.py",
            ("#198131", "#195451", "#198031", "#198101"),
            "reads a value after a later write into its memory, or returns it as the memory written to",
            "copies it before the write",
            "a copy of each such value; models of the zoo have none",
        ),
        Correction(
            "any-of-uint8",
            "upstream/dtypes.py",
            ("#198081",),
            "gives bool for `any` and `all` of uint8",
            "gives uint8, as eager",
        ),
        Correction(
            "ldexp-dtype",
            "upstream/dtypes.py",
            ("#197091",),
            "takes the result's dtype from the first operand alone",
            "promotes both operands",
        ),
        Correction(
            "index-values",
            "upstream/indices.py",
            ("#175966", "#183901"),
            "computes values from indices in 32 bits",
            "gives a kernel 64-bit indices where such a value may exceed 32 bits",
            "slower index arithmetic in such kernels",
        ),
        Correction(
            "shifts",
            "codegen/overrides.py",
            ("#143555",),
            "shifts as Triton does, where a shift by the width of the type or more, or by less than 0, is undefined",
            "gives what aten does: 0, or the sign",
            "a comparison and a selection, unless the shift is known to be in range",
        ),
        Correction(
            "division-by-zero",
            "upstream/division.py",
            ("#178013", "#143649", "#154420", "#174174"),
            "gives some integer for a division of integers by zero, or ends the process",
            "raises, as eager",
            "one reduction over the divisor; none for constants and divisors known to be at least 1",
        ),
        Correction(
            "variance-in-float64",
            "upstream/variance.py",
            ("#197089",),
            "computes var and std in float32: 0 or infinite for values of 1e-30 or 1e30",
            "computes them in float64, as aten does on CPUs; not inside of normalizations, where aten does not",
            "half the lanes for var and std that a model calls itself",
        ),
        Correction(
            "scan-of-scalar",
            "upstream/scans.py",
            ("#193263", "#179571"),
            "does not compile cumsum of a constant without dimensions; gives indices of cummax at random",
            "copies the value",
        ),
        Correction(
            "average-pooling-gradient",
            "upstream/pooling.py",
            ("#198119",),
            "divides by the whole window where ceil_mode lets the last one hang over the padding",
            "divides by the elements in the window",
            "one pass over the output's gradient, with ceil_mode only",
        ),
        Correction(
            "scalars-in-memory",
            "codegen/scheduling.py",
            ("#183017",),
            "passes CPU tensors without dimensions to kernels as numbers, in a loop's body to be written in place",
            "passes their addresses",
        ),
        Correction(
            "strided-views",
            "upstream/views.py",
            ("#175325", "#195823", "#197431"),
            "counts the offset of as_strided from a view's first element, and reads beyond the storage",
            "counts it from the storage's start, and raises for what lies beyond its end",
        ),
        Correction(
            "random-order",
            "upstream/draws.py",
            ("#175156", "#174078", "#142853", "#148061"),
            "with fallback_random, draws in another order than the program where a result is not used",
            "keeps the order of all draws",
        ),
        Correction(
            "float-arguments",
            "codegen/wrapper.py",
            ("#190340", "linkedin/Liger-Kernel#1366", "linkedin/Liger-Kernel#1350"),
            "gives Python floats to user-defined kernels as float64, which Triton alone gives as float32; "
            "those computed from sizes as integers",
            "gives them as float32",
        ),
        Correction(
            "written-views",
            "upstream/kernels.py",
            (),
            "gives a user-defined kernel that writes into a view other memory, and reads beyond it; "
            "loses what was written through one of two views of the same elements",
            "gives the kernel views of one copy of the whole tensor",
            "a copy of the whole tensor in place of one of each view; models of the zoo have none",
        ),
        Correction(
            "eager-rounding",
            "upstream/rounding.py",
            ("#183607", "#185337", "#182131", "#183761"),
            "keeps 16-bit values in float32 inside a kernel, rounded in one use and not in another",
            "rounds at each conversion to 16 bits or from them, and each value that is used more than once",
            "none measurable in bert and llama in bfloat16",
        ),
        Correction(
            "complex-moves",
            "codegen/scheduling.py",
            ("#188718",),
            "fails with a KeyError where a kernel moves complex elements",
            "moves complex64 as 64-bit integers; graphs that move complex128 run elsewhere, recorded",
        ),
        Correction(
            "scaled-integers",
            "upstream/dtypes.py",
            (),
            "softmax of a scaled integer tensor subtracts the maximum in integers, which wrap",
            "turns integers into floats before they are scaled",
        ),
        Correction(
            "logcumsumexp-in-float64",
            "upstream/scans.py",
            (),
            "sums in float32; the gradient, a difference of logarithms, is off by up to 6 % for 20,000 elements",
            "sums in float64, as aten",
            "half the lanes",
        ),
        Correction(
            "scans-in-float64",
            "codegen/scans.py",
            (),
            "carries running sums and products of float32 from block to block in float32: 50 times aten's error after "
            "4,097 rows",
            "carries them in float64, as aten, where the target has it, and rounds each once",
            "half the lanes",
        ),
        Correction(
            "overlapping-results",
            "upstream/outputs.py",
            (),
            "gives a result's gradient the result's strides: where elements overlap, as after unfold, it is wrong",
            "returns a contiguous copy of such a result",
            "that copy, in training; the result's strides are not eager's",
            versions=("2.12", "2.13"),
        ),
        Correction(
            "listed-writes",
            "upstream/lists.py",
            (),
            "reads all tensors of `torch._foreach_copy_` and its kind before it writes any, though they overlap",
            "goes in turn, as eager",
        ),
        Correction(
            "masked-stores",
            "codegen/overrides.py",
            (),
            "ignores the mask of a load (of F.pad with negative padding) of a value that the same kernel stores",
            "selects by the mask",
            "a selection in such kernels",
        ),
        Correction(
            "sizes-in-float64",
            "codegen/printing.py",
            (),
            "computes quotients, square roots and functions of sizes in float32 inside a kernel, though they are "
            "Python's numbers: 1 / n, returned, is wrong from the eighth digit on",
            "computes them in float64, on targets that have it",
        ),
        Correction(
            "masks-of-values",
            "codegen/overrides.py",
            (),
            "loses the masks of a value computed from indices where it converts it: what it addresses is read, and "
            "checked to be in bounds, in lanes that do not exist",
            "keeps the masks",
            versions=("2.13",),
        ),
        Correction(
            "scalar-writes",
            "upstream/scalars.py",
            (),
            "loses writes into inputs of float64 without dimensions: Dynamo traces twice and then drops them",
            "has Dynamo trace once",
        ),
        Correction(
            "scalars-read-once",
            "upstream/scalars.py",
            (),
            "computes with an old value of a float that changes, where one operation has it as a tensor and another as "
            "a constant (x * s, and add with alpha=s): the cached graph answers for the next value, too",
            "makes it a constant of the graph",
            "the graph is compiled for each value, as where nothing has the float as a tensor",
        ),
        Correction(
            "scaled-bools",
            "codegen/overrides.py",
            (),
            "gives 3 for torch.add(True, True, alpha=2), a bool, to what reads it in the same kernel",
            "gives True",
        ),
        Correction(
            "known-bools",
            "upstream/dtypes.py",
            (),
            "does not compile minimum and maximum of bools that are constants (isnan of integers)",
            "uses logical_and and logical_or",
        ),
        Correction(
            "integer-thresholds",
            "upstream/dtypes.py",
            (),
            "turns integers into float32 for F.threshold with a float, which rounds large ones",
            "stays with integers, as aten",
        ),
        Correction(
            "soft-margin-gradient",
            "upstream/formulas.py",
            (),
            "computes sigmoid(z) - 1 for the gradient of soft_margin_loss: 14 % off for z = 14, 0 from 17 on",
            "computes sigmoid(-z)",
        ),
        Correction(
            "integer-linspace",
            "upstream/formulas.py",
            (),
            "does not make integers of the ends of linspace of integers, and computes in float32",
            "as aten: makes them integers first, and computes in float64",
        ),
        Correction(
            "complex-lerp",
            "upstream/formulas.py",
            (),
            "does not compile lerp with a complex weight that is a number",
            "computes it as aten",
            versions=("2.12", "2.13"),
        ),
        Correction(
            "masked-puts",
            "upstream/formulas.py",
            (),
            "loses z[rows] = y before z[mask] = 0, and reads z through views too late",
            "selects by the mask",
        ),
        Correction(
            "empty-complex",
            "upstream/formulas.py",
            (),
            "does not compile the sum of two complex tensors without elements",
            "gives an empty tensor",
        ),
        Correction(
            "float-floor-division",
            "upstream/division.py",
            ("#197895", "#188048", "#184408"),
            "rounds the rounded quotient down: 1.0 // 0.1 is 10",
            "goes by way of the remainder, as aten and Python do: 9",
            "one fmod for each floor division of floats",
        ),
        Correction(
            "division-of-16-bits",
            "upstream/division.py",
            (),
            "keeps in float32 what aten rounds to 16 bits: a quotient before trunc, the number a remainder is taken by",
            "rounds it",
        ),
        Correction(
            "typed-indices",
            "upstream/propagation.py",
            (),
            "computes with indices as with whole numbers of no type: `arange(9).bool().int()` is `arange(9)`, "
            "`arange(300).to(torch.uint8).long()` does not wrap, values do not round",
            "does so for int64 only",
        ),
        Correction(
            "loop-counters",
            "upstream/loops.py",
            (),
            "does not compile `scan` and `map` unless Dynamo's `capture_scalar_outputs` is set",
            "compiles them",
        ),
        Correction(
            "expanded-carries",
            "upstream/loops.py",
            (),
            "does not compile the gradient of `while_loop` and a sum, which is expanded",
            "copies what a loop begins with, where it is expanded",
            versions=("2.11", "2.12"),
        ),
        Correction(
            "complex-order",
            "upstream/order.py",
            (),
            "moves reads of a complex tensor ahead of a write into a view of it, to save memory",
            "keeps the graph's order",
            "memory of graphs that write complex tensors",
        ),
        Correction(
            "negated-inputs",
            "upstream/negation.py",
            (),
            "reads and writes inputs that are lazily negated (`x.conj().imag`) with the wrong sign",
            "negates what it reads and writes",
        ),
        Correction(
            "copied-results",
            "upstream/results.py",
            (),
            "gives an input for a copy of a copy of it, if a view lies between: `x.clone().t().clone()`",
            "copies it",
            "a copy of each such result; models of the zoo have none",
        ),
        Correction(
            "detached-results",
            "upstream/results.py",
            (),
            "gives one tensor for a result and its `detach()`, and no gradient for either",
            "gives two that share memory",
        ),
        Correction(
            "saved-views",
            "upstream/saved.py",
            (),
            "does not notice that a view saved for the gradient was written afterwards, and computes a wrong gradient",
            "raises, as eager",
            "3 microseconds for each saved view of an input or of a result, in training",
        ),
        Correction(
            "saved-inputs",
            "upstream/saved.py",
            (),
            "saves an input for the gradient that the program itself writes, and raises in backward()",
            "saves a copy from before",
            "that copy, in training",
        ),
        Correction(
            "lazy-gradients",
            "codegen/wrapper.py",
            (),
            "reads memory that the gradient of `sgn` does not have, and ends the process",
            "makes zeros of it",
            "0.2 microseconds for each gradient that a backward graph takes",
        ),
        Correction(
            "written-strides",
            "upstream/strides.py",
            (),
            "gives transposed tensors that are written (`masked_fill_`, `tril_`, `scatter_`) other strides: "
            "`as_strided` reads other elements, writes through `reshape` are lost",
            "keeps their strides",
        ),
        Correction(
            "sizes-in-place",
            "upstream/sizes.py",
            (),
            "gives the sizes from before to what reads `y.shape` after `y.t_()`, `y.unsqueeze_(0)` and their kind",
            "gives those from after it",
            "a second trace by Dynamo, once in a process",
        ),
        Correction(
            "scaled-sums",
            "upstream/formulas.py",
            (),
            "ignores alpha in `torch.add(a @ b, c, alpha=2)`",
            "multiplies by it",
        ),
        Correction(
            "narrow-nextafter",
            "upstream/formulas.py",
            (),
            "computes `torch.nextafter` of 16-bit floats in float32: the step is lost",
            "steps in their bits",
        ),
        Correction(
            "typed-sums",
            "upstream/scans.py",
            (),
            "ignores dtype in `torch.ones(n).cumsum(0, dtype=torch.float64)`, the sums of a constant",
            "sums in that type",
        ),
        Correction(
            "softmax-of-scalar",
            "upstream/formulas.py",
            (),
            "does not compile softmax of a scaled tensor without dimensions",
            "computes it of one element",
        ),
        Correction(
            "interpolated-bytes",
            "upstream/images.py",
            (),
            "interpolates uint8 in float32: one element in eight is off by 1",
            "leaves bilinear and bicubic interpolation of uint8 to aten, recorded",
            "aten's time in place of a generated kernel's",
        ),
        Correction(
            "placed-maxima",
            "upstream/maxima.py",
            (),
            "gives max pooling the index of the first NaN, and of padding, a negative one, where nothing is larger",
            "gives aten's: of the last NaN, else of the first element that is the maximum",
            "two comparisons for each element of a window, where indices are used",
        ),
        Correction(
            "overlapping-scatters",
            "upstream/overlap.py",
            (),
            "writes into a result whose elements overlap (`slice_scatter` of `x.unfold(0, 2, 1)`) in another order",
            "leaves such an operation to aten, recorded",
            "a copy",
        ),
        Correction(
            "negative-indices",
            "upstream/selection.py",
            (),
            "counts negative indices of index_select, index_add and index_copy from the end",
            "raises, as eager",
            "a comparison and a selection for each index",
        ),
        Correction(
            "symbolic-orders",
            "upstream/symbols.py",
            (),
            "does not compile graphs with `dynamic=True` that return a view of a result with channels last: it "
            "compares strides that are symbols",
            "compares them by the sizes of the example",
        ),
        Correction(
            "stride-remainders",
            "upstream/symbols.py",
            (),
            "does not compile graphs with `dynamic=True` where it asks for the remainder of products of the same size, "
            "as in the gradient of a convolution whose square images become tokens",
            "asks in terms that PyTorch understands",
            versions=("2.13",),
        ),
        Correction(
            "complex-strides",
            "upstream/saved.py",
            (),
            "does not compile some gradients of Fourier transforms of images with channels last: it views a complex "
            "tensor that it saved in another order of dimensions as a real one",
            "copies that tensor",
            "that copy, in training",
        ),
        Correction(
            "scale-nodes",
            "upstream/scales.py",
            (),
            "fails where it finds attention whose scale is a tensor or an unknown number",
            "computes such attention by products and a softmax, as written",
        ),
    )
}

_off: ContextVar[frozenset[str]] = ContextVar("torchport_corrections_off", default=frozenset())


def applies(name: str) -> bool:
    """Whether a correction is in force in this thread; it is unless a test turned it off."""
    assert name in CORRECTIONS, f"{name!r} is no correction"
    return name not in _off.get()


def tag() -> str:
    """What cache keys must contain: the corrections that are off."""
    return f" without={','.join(sorted(_off.get()))}" if _off.get() else ""


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Compile as stock Inductor does in these respects while the context is open. For tests of the corrections."""
    unknown = set(names) - set(CORRECTIONS)
    if unknown:
        raise KeyError(f"no correction is called {', '.join(sorted(unknown))}")
    token = _off.set(_off.get() | set(names))
    try:
        yield
    finally:
        _off.reset(token)
