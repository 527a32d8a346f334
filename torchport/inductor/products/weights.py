"""Weights that a graph computes from narrower ones, element by element: what a product's kernel takes in.

A quantised weight is unpacked, shifted and scaled in as many ways as there are libraries. All of them are arithmetic on
the elements of narrow tensors, so the kernel evaluates that arithmetic where it would load an element, and the wide
weight is never stored. The terms k of a sum are cut into parts, so that what is packed together (the halves of a byte)
is read once, and into groups, so that what belongs to a group (its scale) is loaded once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sympy
import torch

from torchport.inductor.codegen.templates import Inlined, TemplateKernel
from torchport.inductor.compat import (
    DefaultHandler,
    FloorDiv,
    ModularIndexing,
    TritonSymbols,
    V,
    ir,
    sympy_index_symbol,
)
from torchport.inductor.products.conditions import Deciding, Known, Undecided, plain

__all__ = ["PARTS", "Weight", "is_computed", "weight_of"]

_COLUMN, _GROUP, _TERM = (sympy.Symbol(f"weight_{name}", integer=True, nonnegative=True) for name in "ngt")
_SHORTEST = 8
"""Terms of a group, at least: fewer do not fill a vector."""
PARTS = (1, 2, 4, 8)
"""Into which the terms of a sum may be cut."""
_EXACT = frozenset({torch.int8, torch.uint8, torch.bool})
"""Integers that the 8 bits of bfloat16's significand hold."""


class _Reads(Deciding, DefaultHandler):
    """Evaluates nothing, and notes what is read: ``found`` has names and indices.

    ``divisors``: terms after which something on the way begins anew. ``decidable``: whether conditions were known.
    """

    def __init__(self, ranges: Mapping[sympy.Symbol, Any]) -> None:
        self.ranges, self.found = ranges, dict[tuple[str, Any], None]()
        self.divisors, self.decidable = set[int](), True

    def load(self, name: str, index: Any) -> str:
        index = self.simplified(index)
        self.divisors.update(_divisors(index))
        self.found[name, index] = None
        return name

    def indirect_indexing(self, index: Any, size: Any, check: bool = True, wrap_neg: bool = True) -> Any:
        if not isinstance(index, Known):
            raise Undecided  # a table's element: a gather for each weight
        return index.value

    def _default(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "index_expr":
            self.divisors.update(_divisors(self.simplified(args[0])))
        found = self.decided(name, args)
        if found is not None:
            return found
        return "" if name != "frexp" else ("", "")


class _Written(Deciding, Inlined):
    """Writes the arithmetic into a kernel."""

    def __init__(self, kernel: Any, ranges: Mapping[sympy.Symbol, Any], places: Mapping[sympy.Symbol, Any]) -> None:
        super().__init__(kernel, 0, "", {})
        self.ranges, self.places = ranges, places

    def load(self, name: str, index: Any) -> Any:
        return super().load(name, self.simplified(index).subs(self.places))

    def indirect_indexing(self, index: Any, size: Any, check: bool = True, wrap_neg: bool = True) -> Any:
        return index.value

    def _default(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = self.decided(name, args)
        if found is not None:
            return found
        if name == "to_dtype" and args[1] is torch.bfloat16 and getattr(args[0], "dtype", None) in _EXACT:
            args, kwargs = (args[0], torch.float32), {}
        return super()._default(name, tuple(map(self.value, args)), kwargs)

    def value(self, one: Any) -> Any:
        """``one`` as an operand of code."""
        if not isinstance(one, Known):
            return one
        if isinstance(one.value, sympy.Expr) and not one.value.is_number:
            index = one.value.subs(self.places)
            return self._line(f"({self._process_indexing(index)})", torch.int64, TritonSymbols.get_block_shape(index))
        plain = one.value if isinstance(one.value, (bool, float)) else int(one.value)
        return self._inner.constant(plain, one.dtype)


@dataclass(frozen=True)
class Weight:
    """A matrix [K, N] whose elements are computed.

    ``element``: gives the element at [k, n], by operations. ``reads``: names of the tensors that it reads.
    ``parts``: into how many parts the terms are cut; term j of part r is ``j * parts + r`` if ``packed``, else
    ``r * (K / parts) + j``. ``length``: of a group of terms j; the last may be shorter. ``by_term``: neighbours in
    memory are terms of one sum, else columns. ``bytes``: read for an element.
    """

    element: Callable[[Any, Any], Any]
    dtype: torch.dtype
    size: tuple[int, int]
    parts: int = 1
    packed: bool = True
    length: int = 0
    reads: tuple[str, ...] = ()
    bytes: float = 0.0
    by_term: bool = True

    @property
    def terms(self) -> int:
        """Of a part."""
        return self.size[0] // self.parts

    @property
    def groups(self) -> int:
        """Groups of a part."""
        return -(-self.terms // self.length)

    def at(self, part: int) -> Any:
        """The element of column _COLUMN at term _TERM of group _GROUP of a part."""
        term = self.length * _GROUP + _TERM if self.groups > 1 else _TERM
        return self.element(self.parts * term + part if self.packed else self.terms * part + term, _COLUMN)

    @property
    def ranges(self) -> dict[sympy.Symbol, Any]:
        """How many values each symbol of ``at`` has."""
        return {_COLUMN: self.size[1], _GROUP: self.groups, _TERM: self.length}

    def code(self, kernel: TemplateKernel, column: Any, group: Any, term: Any, each: bool, mask: str = "") -> str:
        """Lines of a kernel that compute an element of each part as ``weight0`` ...

        ``column``, ``group``, ``term``: Variables of the kernel. ``each``: what depends on the term; else the rest.
        """
        places = {}
        for symbol, variable in ((_COLUMN, column), (_GROUP, group), (_TERM, term)):
            made = kernel.cse.generate(kernel.compute, f"({variable[0]})", dtype=torch.int64, shape=variable[1])
            places[symbol] = sympy_index_symbol(str(made))
        varying = {str(places[_TERM])}
        handler, names = _Written(kernel, self.ranges, places), []
        with V.set_ops_handler(handler):
            for part in range(self.parts):
                names.append(f"weight{part} = {handler.value(plain(self.at(part)))}")
        kernel.codegen_body()
        lines = {False: list[str](), True: list[str]()}
        made = [line.split(" = ", 1)[0] for line in kernel.body.getvalue().splitlines()]
        numbers = {name: f"of_weight{number}" for number, name in enumerate(made)}  # the same in each call
        varying = {numbers.get(name, name) for name in varying}
        for line in [*kernel.body.getvalue().splitlines(), *names]:
            line = re.sub(r"\btmp\d+\b", lambda found: numbers.get(found[0], found[0]), line)
            name, right = line.split(" = ", 1)
            depends = name in varying or not varying.isdisjoint(re.findall(r"\w+", right))
            if depends or name.startswith("weight"):
                varying.add(name)
                line = _masked(line, mask) if mask else line
                lines[True].append(f"{line}.to(tl.float32)" if name.startswith("weight") else line)
            else:
                lines[False].append(line)
        return "\n".join(lines[each])


def _masked(line: str, mask: str) -> str:
    """A line whose load, if it is one, reads where ``mask`` is true."""
    found = re.fullmatch(r"(\w+ = tl\.load\(.*)\)(\.to\(tl\.\w+\))?", line)
    return f"{found[1]}, {mask}, 0){found[2] or ''}" if found else line


def weight_of(b: Any) -> Weight | None:
    """The right operand [K, N] of a product, if it is computed from fewer bytes than it has, of known sizes."""
    sizes = [V.graph.sizevars.simplify(size) for size in b.get_size()]
    if len(sizes) != 2 or not all(isinstance(size, sympy.Integer) for size in sizes) or 0 in sizes:
        return None
    loader = _loader(b)
    if loader is None:
        return None
    first = Weight(lambda k, n: loader([k, n]), b.get_dtype(), (int(sizes[0]), int(sizes[1])))
    for parts in PARTS:
        for packed in (True, False)[: 1 if parts == 1 else 2]:
            if first.size[0] % parts == 0:
                found = _grouped(replace(first, parts=parts, packed=packed))
                if found is not None:
                    return found if found.bytes < found.dtype.itemsize else None
    return None


def _grouped(weight: Weight) -> Weight | None:
    """``weight`` in groups in which indices are linear in the term; None if there are none."""
    seen = _reads(replace(weight, length=weight.terms))
    lengths = {weight.terms, *(one for one in seen.divisors if one >= _SHORTEST)}
    for length in sorted(lengths, reverse=True):
        weight = replace(weight, length=length)
        seen = _reads(weight)
        if seen.decidable and not any(_divisors(index) for _, index in seen.found):
            break
    else:
        return None
    reads = list(seen.found)
    each = {(name, index) for name, index in reads if index.has(_TERM)}
    steps = {(index.expand().coeff(_TERM), index.expand().coeff(_COLUMN)) for _, index in each}
    if steps and all(step == 1 for step, _ in steps):
        by_term = True
    elif steps and all(step == 1 for _, step in steps):
        by_term = False
    else:
        return None
    bytes_ = sum(V.graph.get_buffer(name).get_dtype().itemsize for name, _ in each) / weight.parts
    return replace(weight, reads=tuple(dict.fromkeys(name for name, _ in reads)), bytes=bytes_, by_term=by_term)


def _reads(weight: Weight) -> _Reads:
    """What the elements of a column read."""
    handler = _Reads(weight.ranges)
    with V.set_ops_handler(handler):
        for part in range(weight.parts):
            try:
                weight.at(part)
            except Undecided:
                handler.decidable = False
    return handler


def _divisors(index: Any) -> list[int]:
    """Terms after which a quotient in an index goes on, or a rest begins anew; 1 for what is not known."""
    found = []
    for one in index.atoms(FloorDiv, ModularIndexing):
        if one.has(_TERM):
            slope, divisor = one.args[0].expand().coeff(_TERM), one.args[1]
            length = divisor * one.args[2] if isinstance(one, ModularIndexing) and divisor == 1 else divisor
            whole = slope.is_number and length.is_number and slope > 0 and length % slope == 0
            found.append(int(length // slope) if whole else 1)
    return found


def is_computed(x: Any) -> bool:
    """Whether a graph computes a tensor element by element, and has not stored it yet."""
    stored = isinstance(getattr(x, "data", None), ir.ComputedBuffer)
    inner = getattr(x, "data", None) if isinstance(x, (ir.TensorBox, ir.BaseView)) else None
    return is_computed(inner) if inner is not None else isinstance(x, ir.StorageBox) and not stored and bool(_loader(x))


def _loader(x: Any) -> Callable[[Any], Any] | None:
    """What computes the elements of a tensor that a graph computes element by element; None for another one."""
    if isinstance(x, ir.TensorBox):
        return _loader(x.data)
    if isinstance(x, ir.StorageBox):
        data = x.data.data if isinstance(x.data, ir.ComputedBuffer) else x.data
        return data.inner_fn if type(data) is ir.Pointwise and _is_placed(data) else None
    if isinstance(x, ir.ReinterpretView):
        return _strided(x)
    if isinstance(x, ir.BaseView):
        inner, reindex = _loader(x.data), x.make_reindexer()
        return None if inner is None else lambda index: inner(reindex(index))
    return None


def _is_placed(data: Any) -> bool:
    """Whether the strides of all that a computation reads are decided: those of other products' results are not yet."""
    read = (V.graph.get_buffer(name) for name in data.get_read_names())
    return not any(isinstance(one.maybe_get_layout(), ir.FlexibleLayout) for one in read)


def _strided(x: Any) -> Callable[[Any], Any] | None:
    """The same of a matrix, or its transpose, in a buffer that it fills."""
    inner, layout, buffer = _loader(x.data), x.get_layout(), x.data
    if inner is None or layout.offset != 0 or len(layout.size) != 2:
        return None
    shape = list(buffer.get_size())
    if not ir.is_contiguous_strides_for_shape(buffer.get_stride(), shape):
        return None
    size = list(layout.size)
    for turned in (False, True):
        order = size[::-1] if turned else size
        strides = layout.stride[::-1] if turned else layout.stride
        if ir.is_contiguous_strides_for_shape(strides, order) and sympy.prod(order) == sympy.prod(shape):
            reindex = ir.View.dynamic_reshape_indexer(shape, order)
            return lambda index: inner(reindex(index[::-1] if turned else index))
    return None
