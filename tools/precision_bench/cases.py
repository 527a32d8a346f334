"""The problems of the benchmark: operations x shapes x dtypes x distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from precision_bench.problems import DISTRIBUTIONS, DTYPES, Problem, draw, problem

POINTWISE = {"gelu": ("erf",), "swiglu": ("exp",), "rotary": ("sin", "cos"), "small_gradient": ()}
ROWS = {"softmax": ("exp",), "layer_norm": ("rsqrt",), "rms_norm": ("rsqrt",), "log_sum_exp": ("exp", "log"),
        "row_sum": (), "running_sum": ()}  # fmt: skip

Maker = Callable[[torch.dtype, str, Sequence[int], torch.Generator], Problem]


def pointwise(name: str) -> Maker:
    def make(dtype: torch.dtype, distribution: str, shape: Sequence[int], generator: torch.Generator) -> Problem:
        n = shape[0] * shape[1]
        tensors = {"x": draw((n,), dtype, distribution, generator)}
        if name != "gelu":
            tensors["gate"] = draw((n,), dtype, distribution, generator)
        traits = ["function" if POINTWISE[name] else "gradient"]
        if name == "small_gradient":  # results around the smallest normal number
            least = torch.finfo(dtype).smallest_normal
            tensors["x"] = (tensors["x"].double() * least * 2).to(dtype)
        tensors["out"] = torch.full((n,), float("nan"), dtype=dtype)
        block = 1024
        return problem(
            name, name, tensors, {"n": n}, {"BLOCK": block}, (-(-n // block), 1, 1), ["out"],
            traits=traits, functions=POINTWISE[name], tail="n",
        )  # fmt: skip

    return make


def rows(name: str) -> Maker:
    def make(dtype: torch.dtype, distribution: str, shape: Sequence[int], generator: torch.Generator) -> Problem:
        whole = name not in ("row_sum", "log_sum_exp")
        tensors = {"x": draw(shape, dtype, distribution, generator)}
        tensors["out"] = torch.full(tuple(shape) if whole else (shape[0],), float("nan"), dtype=dtype)
        block = 1 << (shape[1] - 1).bit_length()
        constants = {"BLOCK": block} | ({} if name == "running_sum" else {"UPCAST": True})
        traits = ["sum"] + (["function"] if ROWS[name] else [])
        return problem(
            name, name, tensors, {"columns": shape[1]}, constants, (shape[0], 1, 1), ["out"],
            traits=traits, functions=ROWS[name],
        )  # fmt: skip

    return make


def route(dtype: torch.dtype, distribution: str, shape: Sequence[int], generator: torch.Generator) -> Problem:
    tensors = {"x": draw(shape, dtype, distribution, generator)}
    tensors["weights"] = torch.full((shape[0],), float("nan"), dtype=torch.float32)
    tensors["index"] = torch.full((shape[0],), -1, dtype=torch.int64)
    block = 1 << (shape[1] - 1).bit_length()
    return problem(
        "route", "route", tensors, {"columns": shape[1]}, {"BLOCK": block}, (shape[0], 1, 1), ["weights", "index"],
        traits=["routing", "sum", "function"], functions=("exp",),
    )  # fmt: skip


def product(dtype: torch.dtype, distribution: str, shape: Sequence[int], generator: torch.Generator) -> Problem:
    m, k = shape
    n = 64
    out = torch.float32 if dtype.itemsize == 1 else dtype
    tensors = {
        "a": draw((m, k), dtype, distribution, generator),
        "b": draw((k, n), dtype, distribution, generator),
        "out": torch.full((m, n), float("nan"), dtype=out),
    }
    scalars = {"rows": m, "columns": n, "depth": k}
    constants = {"BM": 32, "BN": 64, "BK": 32}
    return problem(
        "product", "product", tensors, scalars, constants, (1, -(-m // 32), 1), ["out"], traits=["dot"], tail="rows"
    )


def attention(dtype: torch.dtype, distribution: str, shape: Sequence[int], generator: torch.Generator) -> Problem:
    length, d = shape[1] // 2, 64
    tensors = {one: draw((2, length, d), dtype, distribution, generator) for one in ("q", "k", "v")}
    tensors["out"] = torch.full((2, length, d), float("nan"), dtype=dtype)
    constants = {"D": d, "BM": 32, "BN": 32}
    return problem(
        "attention", "attention", tensors, {"length": length}, constants, (-(-length // 32), 2, 1), ["out"],
        traits=["dot", "sum", "function"], functions=("exp",),
    )  # fmt: skip


MAKERS: dict[str, Maker] = {
    **{name: pointwise(name) for name in POINTWISE},
    **{name: rows(name) for name in ROWS},
    "route": route,
    "product": product,
    "attention": attention,
}
SHAPES = ((61, 257), (128, 1024))


def problems(
    names: Sequence[str] = tuple(MAKERS), shapes: Sequence[Sequence[int]] = SHAPES, seed: int = 0
) -> Iterator[tuple[str, str, str, Sequence[int], Callable[[], Problem]]]:
    """(operation, dtype, distribution, shape, how to make it) of every problem."""
    for name in names:
        for dtype_name, dtype in DTYPES.items():
            if dtype.itemsize == 1 and name != "product":
                continue
            for distribution in DISTRIBUTIONS:
                for shape in shapes:

                    def make(
                        name: str = name, dtype: torch.dtype = dtype, distribution: str = distribution,
                        shape: Sequence[int] = shape,
                    ) -> Problem:  # fmt: skip
                        generator = torch.Generator().manual_seed(seed)
                        return MAKERS[name](dtype, distribution, shape, generator)

                    yield name, dtype_name, distribution, shape, make
