"""Which launches of kernels are attention, and what they are asked for: torchport's own kernels.

A kernel is known by its function and its arguments. What was compiled into it is in the graph, so what is expected
follows from what was asked for, not from the kernel's source.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torchport.numerics.graphs.special import Refused, kept_by_dropout
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.verdicts.attention.asked import Asked, InScratch, checked
from torchport.numerics.verdicts.attention.reference import Attention, Far
from torchport.numerics.verdicts.observed import tensor_of
from torchport.ops.attention import backward, forward, paged_heads, paged_kernels, piecewise_kernels
from torchport.ops.kernel import Kernel

__all__ = ["asked_of_kernel"]

_LN2 = math.log(2)
_DRAWN = 2**26
"""Random numbers of dropout that are drawn again at most."""

_WRAPPER = "higher_order.triton_kernel_wrapper_mutation"


class _Given:
    """A launch's arguments by name: tensors before it, numbers, and what was compiled in. Raises Refused."""

    def __init__(self, run: Run, launch: Launch, constants: Mapping[str, Any]) -> None:
        self._run, self._constants = run, constants
        self._args: dict[str, Arg] = {arg.name: arg for arg in launch.args}

    def has(self, name: str) -> bool:
        """Whether a tensor was passed."""
        return name in self._args and self._args[name].storage is not None

    def exact(self, name: str, *dims: int) -> torch.Tensor:
        """A tensor as it was recorded, which has one of these numbers of dimensions."""
        arg = self._args.get(name)
        found = None if arg is None or arg.storage is None else tensor_of(self._run, arg, after=False)
        if found is None or found.dim() not in dims:
            raise Refused(f"what {name} held was not kept")
        return found

    def tensor(self, name: str, *dims: int) -> torch.Tensor:
        """The same, in float64."""
        return self.exact(name, *dims).double()

    def number(self, name: str) -> Any:
        """A number that was passed or compiled in."""
        found = self._constants.get(name, self._args[name].value if name in self._args else None)
        if not isinstance(found, (bool, int, float)):
            raise Refused(f"{name} is no number")
        return found

    def is_set(self, name: str) -> bool:
        """Whether something that only some kernels have was compiled in."""
        return self._constants.get(name, False) is True

    def single(self, name: str) -> float:
        """A number as the kernel has it, rounded to float32."""
        return float(torch.tensor(float(self.number(name)), dtype=torch.float32))

    def copies(self, name: str) -> int:
        """How many copies of a gradient there are; 0 if there is none."""
        return self._args[name].shape[0] if self.has(name) else 0


def _sequences(tensor: torch.Tensor, starts: Sequence[int] | None) -> list[torch.Tensor]:
    """The sequences of [batch, heads, length, size], or of packed [tokens, heads, size]: [heads, length, size] each."""
    if tensor.dim() != (4 if starts is None else 3):
        raise Refused("packed tensors have three dimensions, others four")
    if starts is None:
        return list(tensor)
    return [part.transpose(0, 1) for part in tensor.split([b - a for a, b in itertools.pairwise(starts)])]


def _by_tokens(tensor: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    """The sequences of [tokens, heads, ...]: [heads, length, ...] each."""
    if tensor.shape[0] != sum(lengths):
        raise Refused("there are other tokens than those of the queries")
    return [part.transpose(0, 1) for part in tensor.split(list(lengths))]


def _starts(given: _Given, name: str, tokens: int) -> list[int] | None:
    """Where packed sequences begin, and the number of tokens."""
    if not given.has(name):
        return None
    found = [int(one) for one in given.exact(name, 1).tolist()]
    if found[:1] != [0] or found[-1] != tokens or found != sorted(found):
        raise Refused(f"{name} does not divide the tokens")
    return found


def _of_backward(given: _Given, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """What only backward kernels read, of each sequence: gradients by tokens, and by heads sums and deltas."""
    if not given.has("grad"):
        return [{} for _ in lengths]
    read = {"grad": given.tensor("grad", 3), **{name: given.tensor(name, 2).mT for name in ("sums", "deltas")}}
    if given.has("rest"):  # of two numbers in powers of two
        read["sums"] = (read["sums"] + given.tensor("rest", 2).mT) * _LN2
    parts = {name: _by_tokens(tensor, lengths) for name, tensor in read.items()}
    return [{name: part[place] for name, part in parts.items()} for place in range(len(lengths))]


def _scaling(given: _Given) -> tuple[float, float]:
    """Scale and cap of natural scores; kernels have them in powers of two."""
    if not given.number("CAPPED"):
        return given.single("scale") * _LN2, 0.0
    cap = given.single("cap") * _LN2
    return given.single("scale") * cap, cap


def _flash(given: _Given, **fields: Any) -> tuple[Attention, ...]:
    """The sequences of a launch of ``forward``, ``by_columns`` or ``by_rows``."""
    query, key, value = (given.tensor(name, 3, 4) for name in ("query", "key", "value"))
    starts = [_starts(given, name, len(one)) for name, one in (("query_starts", query), ("key_starts", key))]
    queries, keys, values = _sequences(query, starts[0]), _sequences(key, starts[1]), _sequences(value, starts[1])
    if not len(queries) == len(keys) == len(values):
        raise Refused("there are other sequences of queries than of keys")
    scale, cap = _scaling(given)
    left, right = (int(given.number(name)) if given.number(name.upper()) else None for name in ("left", "right"))
    slopes = given.tensor("slopes", 1, 2) if given.has("slopes") else None
    bias = _bias(given, (len(queries), *queries[0].shape[:2], keys[0].shape[1])) if queries else None
    found = []
    backwards = _of_backward(given, [one.shape[1] for one in queries])
    for place, (query, key, value, own) in enumerate(zip(queries, keys, values, backwards, strict=True)):
        shape = query.shape[0], query.shape[1], key.shape[1]
        kept = None
        if given.number("DROPS"):
            if math.prod(shape) > _DRAWN:
                raise Refused("it draws too many random numbers")
            kept = kept_by_dropout(int(given.exact("seed", 1)), given.single("dropout"), place * shape[0], shape)
        found.append(
            Attention(
                query, key, value, scale, 0 if given.number("TOP_LEFT") else shape[2] - shape[1], left, right, cap,
                bias=None if bias is None else bias[place],
                slopes=None if slopes is None else slopes[place] if slopes.dim() == 2 else slopes,
                sinks=given.tensor("sinks", 1) if given.has("sinks") else None, kept=kept, **own, **fields,
            )
        )  # fmt: skip
    return tuple(found)


def _bias(given: _Given, shape: tuple[int, ...]) -> torch.Tensor | None:
    """A bias or a mask, for [batch, heads, rows, keys]."""
    if not given.has("bias"):
        return None
    found = given.exact("bias", 4)
    if any(a not in (1, b) for a, b in zip(found.shape, shape, strict=True)):
        raise Refused("its bias does not fit")
    return (found if found.dtype == torch.bool else found.double()).expand(shape)


def _forward(given: _Given) -> Asked:
    return Asked(_flash(given), {"out": "out", "sums": "sums"})


def _columns(given: _Given) -> Asked:
    """Gradients of keys and values, and those of queries in copies, without their factor."""
    results = {"grad_key": "grad_key", "grad_value": "grad_value"}
    results |= {name: name for name in ("grad_query", "grad_bias") if given.has(name)}
    return Asked(_flash(given, **_copied(given, "grad_query")), results)


def _copied(given: _Given, name: str) -> dict[str, Any]:
    """How gradients of queries are in copies."""
    return {
        "copies": given.copies(name), "block": max(1, int(given.number("BLOCK_N"))),
        "factors": (1.0, given.single("factor")),
    }  # fmt: skip


def _rows(given: _Given) -> Asked:
    return Asked(_flash(given, factors=(given.single("factor"),) * 2), {"grad_query": "grad_query"})


def _piecewise(given: _Given, **fields: Any) -> tuple[Attention, ...]:
    tensors = [list(given.tensor(name, 4)) for name in ("near", "near_key", "value", "far", "far_key")]
    if len({len(one) for one in tensors}) > 1:
        raise Refused("there are other sequences of queries than of keys")
    backwards = _of_backward(given, [one.shape[1] for one in tensors[0]])
    threshold, right = int(given.number("threshold")), 0 if given.number("CAUSAL") else None
    return tuple(
        Attention(
            near, near_key, value, given.single("scale") * _LN2, near_key.shape[1] - near.shape[1], None, right,
            far=Far(far, far_key, threshold), **own, **fields,
        )
        for near, near_key, value, far, far_key, own in zip(*tensors, backwards, strict=True)
    )  # fmt: skip


def _piecewise_forward(given: _Given) -> Asked:
    return Asked(_piecewise(given), {"out": "out", "sums": "sums"})


def _piecewise_columns(given: _Given) -> Asked:
    results = {"grad_key": "grad_near_key", "grad_far_key": "grad_far_key", "grad_value": "grad_value"}
    if given.has("grad_near"):
        results |= {"grad_query": "grad_near", "grad_far_query": "grad_far"}
    return Asked(_piecewise(given, **_copied(given, "grad_near")), results)


def _piecewise_rows(given: _Given) -> Asked:
    results = {"grad_query": "grad_near", "grad_far_query": "grad_far"}
    return Asked(_piecewise(given, factors=(given.single("factor"),) * 2), results)


def _paged(given: _Given) -> Asked:
    """Chunks of keys of each sequence, whose last tokens are the queries."""
    query = given.tensor("query", 3, 4)
    query = query if query.dim() == 4 else query[:, None]
    tables, contexts = given.exact("tables", 2), given.exact("contexts", 1)
    caches = [given.tensor(name, 4) for name in ("key_cache", "value_cache")]
    if not len(query) == len(tables) == len(contexts) or caches[0].shape[:3] != caches[1].shape[:3]:
        raise Refused("there are other sequences of queries than of pages")
    scale, cap = _scaling(given)
    found = []
    for own, pages, count in zip(query, tables.tolist(), contexts.tolist(), strict=True):
        there = [page for page in pages if 0 <= page < len(caches[0])][: -(-count // max(1, caches[0].shape[1]))]
        key, value = (cache[there].flatten(0, 1)[:count].transpose(0, 1) for cache in caches)
        if key.shape[1] != count:
            raise Refused("a context is longer than its pages")
        found.append(
            Attention(
                own.transpose(0, 1), key, value, scale, count - own.shape[0],
                int(given.number("left")) if given.number("LEFT") else None, 0, cap,
                slopes=given.tensor("slopes", 1) if given.has("slopes") else None,
                chunk=max(1, int(given.number("chunk"))), chunks=max(1, int(given.number("splits"))),
            )
        )  # fmt: skip
    width, block = caches[1].shape[3], int(given.number("BLOCK_V"))
    if not found or not width <= block < 2 * max(width, 16):
        raise Refused("its blocks do not fit")
    results = {"partial": "partial", "partial_sums": "partial"}
    return InScratch(tuple(found), results, block=block, paired=given.is_set("VPAIRED"))


_KERNELS: Mapping[Kernel, Callable[[_Given], Asked]] = {
    forward.forward: _forward,
    backward.by_columns: _columns,
    backward.by_rows: _rows,
    piecewise_kernels.piecewise_forward: _piecewise_forward,
    piecewise_kernels.piecewise_columns: _piecewise_columns,
    piecewise_kernels.piecewise_rows: _piecewise_rows,
    paged_kernels.split: _paged,
    paged_heads.split_heads: _paged,
}
"""``delta``, and the kernel that adds up chunks, are plain sums, and judged as other kernels are."""


def asked_of_kernel(run: Run, launch: Launch, nodes: Mapping[str, Mapping[str, Any]]) -> Asked | None:
    """What a launch of one of torchport's kernels of attention should compute; None for other launches.

    ``nodes``: the graph's. None, too, if arguments do not fit together, or were not kept. Raises RunError.
    """
    described = run.kernels.get(launch.kernel or "", {})
    names = tuple(described.get("types", ()))
    for kernel, build in _KERNELS.items():
        if described.get("function") == kernel.function.__name__ and names == (*kernel.arguments, *kernel.constants):
            try:
                return checked(build(_Given(run, launch, _constants(nodes, launch, names))))
            except Refused:
                return None
    return None


def _constants(nodes: Mapping[str, Mapping[str, Any]], launch: Launch, names: Sequence[str]) -> dict[str, Any]:
    """What the graph compiles into the kernel that a launch runs. Raises Refused if it may be one of several."""
    found: list[dict[str, Any]] = []
    for node in (nodes[name] for name in launch.nodes if name in nodes):
        if node["target"] != _WRAPPER:
            continue
        match node["kwargs"]:
            case {"kwargs": {"dict": dict(given)}} if set(given) <= set(names):
                plain = {name: value for name, value in given.items() if type(value) in (bool, int)}
                found.append({name: value for name, value in plain.items() if name.isupper()})
    if not found or any(one != found[0] for one in found):
        raise Refused("what was compiled into the kernel is not known")
    return found[0]
