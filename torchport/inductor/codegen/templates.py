"""Triton kernels that are written as templates, into which functions of the user's are inlined."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import sympy
import torch

from torchport.inductor.codegen.overrides import TorchportOverrides
from torchport.inductor.compat import (
    ModificationWrapper,
    OrderedSet,
    SymbolicGridFn,
    TritonSymbols,
    TritonTemplate,
    TritonTemplateKernel,
    V,
    ir,
    sympy_index_symbol,
)
from torchport.inductor.kernels import Grid
from torchport.inductor.scope import current

__all__ = ["Inlined", "Template", "TemplateKernel", "Variable", "Written"]

_AXES = "xyz"
_SPECIAL = ("subgraphs", "workspace_arg", "hint_override", "triton_meta", "prefix_args", "suffix_args")
"""Arguments of a template that make its calls differ by more than sizes."""


@dataclass(frozen=True)
class Variable:
    """A variable of a kernel: its name, the shape of its block (names or numbers), and the name of its type.

    ``inside``: the variable, of the same shape, that says which elements there are.
    """

    name: str
    shape: tuple[str, ...]
    dtype: str
    inside: str = ""


@runtime_checkable
class Written(Protocol):
    """A function that writes its own lines into a kernel, for what ``modification`` is given."""

    def code(self, kernel: Any, *, mask: str, **inputs: Any) -> str:
        """The lines."""


@SymbolicGridFn  # type: ignore[untyped-decorator]
def _grid(x: Any, y: Any, z: Any, meta: Mapping[str, Any], *, cdiv: Any) -> tuple[Any, Any, Any]:
    return cdiv(x, meta["XBLOCK"]), y, z


class TemplateKernel(TritonTemplateKernel):
    """A kernel from a template. Its arguments hold the sizes that its grid follows from.

    ``call_sizes``: elements in x, y and z. ``meta``: the template's constants; ``XBLOCK`` is the block of x.
    """

    overrides = TorchportOverrides

    def def_kernel(self, *argnames: str) -> str:
        """The head of the kernel."""
        head: str = super().def_kernel(*argnames)
        for axis, size in zip(_AXES, self.launch_sizes(), strict=True):
            self.args.sizevars.setdefault(size, f"{axis}numel")
        return head

    def modification(self, subgraph_number: int, output_name: str | None, mask: str, **inputs: Any) -> str:
        """The code of a function of the user's.

        ``output_name``: the variable that gets the result; None for functions that add to tensors.
        ``mask``: the variable that says for which elements the function is evaluated; what it gives elsewhere is
        not used.
        ``inputs``: each argument's ``Variable``, as a tuple.
        """
        number = sum(name.startswith(f"mod_{subgraph_number}_") for name in self.subgraph_bodies)
        with self.create_subgraph_body(f"mod_{subgraph_number}_{number}"):
            function = self._get_subgraph(subgraph_number)
            if isinstance(function, Written):
                written = function.code(self, mask=mask, **inputs)
                self.cse.invalidate(OrderedSet())
                return written
            given = {name: Variable(*value) for name, value in inputs.items()}
            with V.set_ops_handler(Inlined(self, subgraph_number, mask, given)):
                if output_name is None:
                    lines = [str(self._handle_scatter_graph(one)) for one in function]
                elif isinstance(function.data, ir.InputBuffer):
                    lines = [f"{output_name} = {function.data.make_loader()(())}"]
                else:
                    lines = [f"{output_name} = {function.data.inner_fn(())}"]
            self.codegen_body()
            self.body.writelines(lines)
            code: str = self.body.getvalue()
            self.cse.invalidate(OrderedSet())
            return code

    def call_kernel(self, name: str, node: Any = None, deallocate_ws: bool = True) -> None:
        """Write a call of the kernel; one that Inductor loads itself, as in a subgraph, is also given its grid."""
        scope = current()
        if scope is None or scope.record(name).source is None:
            super().call_kernel(name, node, deallocate_ws)
            return
        _, arguments, _, types = self.args.python_argdefs()
        V.graph.wrapper_code.write_triton_header_once()
        V.graph.wrapper_code.generate_kernel_call(
            name, arguments, arg_types=types, triton_meta=self.triton_meta, triton=True
        )

    @property
    def blocks(self) -> dict[str, int]:
        """Its block sizes."""
        return {name: size for name, size in self.meta.items() if name.startswith("BLOCK_")}

    def roles(self, node_schedule: Any) -> dict[str, str]:
        """By name, ``out`` for the arguments that it fills besides its result, ``inout`` for those that it adds to."""
        scope = current()
        filled = scope.filled if scope is not None else set()
        templates = [one for node in node_schedule if isinstance(one := node.node, ir.TritonTemplateBuffer)]
        written = {buffer.get_name() for one in templates for buffer in one.mutated_inputs or ()}
        names = self.args.input_buffers.items()
        return {name: "out" if buffer in filled else "inout" for buffer, name in names if buffer in written}

    def launch_sizes(self) -> list[Any]:
        """Elements in x, y and z."""
        return [V.graph.sizevars.simplify(sympy.sympify(size)) for size in self.call_sizes]

    def launch_grid(self) -> Grid:
        """How its grid follows from its arguments."""
        names = list(self.triton_meta["signature"])
        sizes = tuple(names.index(self.args.sizevars[size]) for size in self.launch_sizes())
        return Grid(sizes, (self.meta["XBLOCK"], 1, 1))


class Template(TritonTemplate):
    """A template of a ``TemplateKernel``.

    ``shared``: it asks for the strides of all its inputs, and calls that are alike are generated once.
    """

    kernel_type = TemplateKernel

    def __init__(self, name: str, source: str, *, shared: bool = False) -> None:
        super().__init__(name, _grid, source)
        self.shared = shared
        self.always_freeze_layout = True  # an option from torch 2.12 on; before, templates always do
        self._generated: dict[Any, tuple[list[str], Any]] = {}

    def generate_and_load(self, input_nodes: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Inductor's, once for calls that differ in the names of their buffers only.

        It renders the kernel, and loads it as a module that benchmarks would import. What the generated code holds is
        rendered later, with what the kernel is fused with.
        """
        stock = super().generate_and_load
        key = _key(_parameters().bind(self, input_nodes, *args, **kwargs).arguments) if self.shared else None
        if key is None:
            return stock(input_nodes, *args, **kwargs)
        names = [one.get_name() for one in input_nodes]
        if key not in self._generated:
            self._generated[key] = names, stock(input_nodes, *args, **kwargs)
        before, result = self._generated[key]
        renamed = dict(zip(before, names, strict=True))
        return result._replace(
            input_call_args=tuple(renamed[name] for name in result.input_call_args),
            prologue_supported_inputs=OrderedSet(renamed[name] for name in result.prologue_supported_inputs),
            kernel_options={**result.kernel_options, "input_nodes": input_nodes},
        )

    def append(
        self,
        inputs: Sequence[Any],
        layout: Any,
        sizes: Sequence[Any],
        functions: Sequence[Any],
        written: Sequence[Any],
        constants: Mapping[str, Any],
    ) -> Any:
        """Call the kernel in the graph that is being lowered. Returns its result.

        ``inputs``: the arguments of the template, in order. ``layout``: that of the result.
        ``sizes``: elements in x, y and z. ``functions``: what is inlined.
        ``written``: those of ``inputs`` that the kernel fills, and other buffers, that it adds to.
        """
        if (scope := current()) is not None:
            given = {one.get_name() for one in inputs}
            scope.filled.update(name for one in written if (name := one.get_name()) in given)
        caller = self.generate(
            list(inputs), layout, 1, 1, subgraphs=list(functions), mutated_inputs=list(written), call_sizes=list(sizes),
            **constants,
        )  # fmt: skip
        return caller.output_node()


@functools.cache
def _parameters() -> inspect.Signature:
    return inspect.signature(TritonTemplate.generate_and_load)


def _key(given: Mapping[str, Any]) -> Any:
    """All that the arguments of ``generate_and_load`` decide but for names; None where it is more than known sizes."""
    if any(given.get(name) for name in _SPECIAL):
        return None
    inputs = given["input_nodes"]
    for one in inputs:  # rendering settles them, too
        if isinstance(one.get_layout(), ir.FlexibleLayout) and not isinstance(one, ir.ReinterpretView):
            one.data.freeze_layout()
    layouts = [*(one.get_layout() for one in inputs), given["layout"]]
    numbers = tuple((*one.size, None, *one.stride, one.offset) for one in layouts)
    sizes = tuple(given["call_sizes"])
    if any(isinstance(one, sympy.Expr) and not one.is_number for one in (*itertools.chain(*numbers), *sizes)):
        return None
    names = [one.get_name() for one in inputs]
    kinds = tuple((one.dtype, str(one.device)) for one in layouts)
    constants = tuple(given["kwargs"].items())
    return numbers, kinds, tuple(map(names.index, names)), sizes, constants, given["num_stages"], given["num_warps"]


class Inlined(ModificationWrapper):
    """Operations of a function that is inlined: what it reads and adds to becomes arguments of the kernel.

    Inductor's own reads whatever an index points to; here negative indices count from the end, others are checked.
    """

    def __init__(self, kernel: Any, number: int, mask: str, inputs: Mapping[str, Variable]) -> None:
        super().__init__(kernel, number, {name: variable.name for name, variable in inputs.items()}, mask)
        self.inputs = inputs
        self.inside = {variable.shape: variable.inside for variable in inputs.values() if variable.inside}

    def load(self, name: str, index: Any) -> Any:
        """An argument of the function, or elements of a tensor that it captured."""
        if (given := self.inputs.get(name)) is not None:
            return self._line(f"({given.name})", getattr(torch, given.dtype), given.shape)
        dtype = V.graph.get_buffer(name).dtype
        line = f"tl.load({self._add_kernel_input(name)} + {self._process_indexing(index)})"
        if dtype is torch.bool:
            line += ".to(tl.int1)"
        elif dtype in (torch.float16, torch.bfloat16):
            line, dtype = f"{line}.to(tl.float32)", torch.float32
        return self._line(line, dtype, TritonSymbols.get_block_shape(index))

    def indirect_indexing(self, index_var: Any, size: Any, check: bool = True, wrap_neg: bool = True) -> Any:
        """An index that was computed, as a symbol: within the tensor for all elements, in bounds for those in use."""
        shape = tuple(map(str, index_var.shape or ()))
        limit = self._process_indexing(sympy.sympify(size))
        found = self._line(f"{index_var}.to(tl.int64)", torch.int64, shape)
        if wrap_neg:
            found = self._line(f"tl.where({found} < 0, {found} + {limit}, {found})", torch.int64, shape)
        if check:
            unused = f" | ~{self._used(shape)}" if shape else ""
            text = f"index out of bounds: 0 <= index < {limit}"
            self.kernel.compute.writeline(f'tl.device_assert((0 <= {found}) & ({found} < {limit}){unused}, "{text}")')
        within = self._line(f"tl.minimum(tl.maximum({found}, 0), {limit} - 1)", torch.int64, shape)
        return sympy_index_symbol(str(within))

    def store(self, name: str, index: Any, value: Any, mode: Any = None) -> str:
        """Add to elements of a tensor: one addition for all elements of the block that have one index."""
        assert mode == "atomic_add"
        index = sympy.sympify(index)
        shape = tuple(map(str, TritonSymbols.get_block_shape(index)))
        at = f"{self._add_kernel_input(name)} + {self._process_indexing(index)}"
        values = f"tl.where({self.mask}, {value}, 0.0)"
        if not shape or set(shape) == {"1"}:
            return f'tl.atomic_add({at}, tl.sum({values}), sem="relaxed")'
        if "1" in shape:
            values = f"tl.sum({values}, {shape.index('1')}, keep_dims=True)"
        return f'tl.atomic_add({at}, {values}, {self._used(shape)}, sem="relaxed")'

    def _used(self, shape: tuple[str, ...]) -> str:
        return self.inside.get(shape) or str(self.mask)

    def _line(self, line: str, dtype: torch.dtype, shape: Any) -> Any:
        return self.kernel.cse.generate(self.kernel.compute, line, dtype=dtype, shape=shape)
