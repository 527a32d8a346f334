"""Exports a model with torch.export, and makes a program of its graph."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument

from torchport.compile import request
from torchport.errors import CompilationError
from torchport.inductor import compile_graph, without_graph_caches
from torchport.inductor.capture import GraphCode, capture_kernels
from torchport.inductor.compat import ConstraintViolationError, GuardOnDataDependentSymNode, InductorError, UserError
from torchport.inductor.observation.program import program_of, value_of
from torchport.packages.convolutions import every_size
from torchport.packages.manifest import ConstantInput, Range, Relation, TensorInput
from torchport.packages.plain_module import PlainModule
from torchport.packages.trees import names_in_tree
from torchport.program import Program
from torchport.runtime import events

__all__ = ["Exported", "export"]

_STORED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


@dataclass(frozen=True)
class Exported:
    """A model as a program, and what a manifest says of it (``torchport.packages.manifest.Manifest``).

    graph: the code that the program was read from, and the kernels.
    weights: the tensors that the program takes besides the inputs, by their name in the model and in the program.
    state: the names of parameters and buffers.
    sites: the line of the model that each step comes from which calls an operator, by the step's number.
    examples: the tensors among the example inputs.
    """

    program: Program
    graph: GraphCode
    weights: Mapping[tuple[str, str], torch.Tensor]
    state: frozenset[str]
    parameters: tuple[str, ...]
    inputs: tuple[TensorInput | ConstantInput, ...]
    input_tree: Any
    output_tree: Any
    symbols: dict[str, Range]
    relations: tuple[Relation, ...]
    sites: Mapping[int, str]
    examples: tuple[torch.Tensor, ...]


def export(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
    target: str = "cpu",
    decompositions: Mapping[Any, Callable[..., Any]] | None = None,
) -> Exported:
    """Export ``model`` and compile its graph for ``target``. Raises as ``torchport.packages.build`` does.

    decompositions: of operators that the target lacks, by others; Inductor knows its own.
    """
    parameters = _parameters(model, args)
    module = PlainModule(model, parameters, args, kwargs or {})
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        _check_device(module.name_of(name), tensor)
    with torch.no_grad(), module.apart():
        shapes = module.shapes(dynamic_shapes)
        try:
            exported = torch.export.export(module, module.args, module.kwargs, dynamic_shapes=shapes, strict=False)
        except (UserError, ConstraintViolationError, GuardOnDataDependentSymNode) as error:
            raise CompilationError(_refusal(error)) from error
        if decompositions and any(node.target in decompositions for node in exported.graph.nodes):
            exported = exported.run_decompositions(dict(decompositions))
    input_tree = module.input_tree(exported.call_spec.in_spec)
    values, stored = _inputs(exported, module, _names(input_tree, parameters))
    tensors = [one.node.meta["val"] for one in (*stored, *values) if one.node is not None]
    _check_sizes(tensors)
    gm = exported.graph_module
    placeholders = gm.graph.find_nodes(op="placeholder")
    code = _compiled(gm, [node.meta["val"] for node in placeholders], target)
    sites: dict[int, str] = {}
    program = program_of(code.code, code.kernels, _locator(gm.graph), sites=sites)
    if len(program.inputs) != len(tensors) or not code.exact:
        raise CompilationError(
            "the graph needs code around it, which a package cannot hold: it changes the sizes of an input, or writes "
            "a buffer that shares its memory with another"
        )
    calls = dict(zip(placeholders, program.inputs, strict=True))
    weights = {(one.name, calls[one.node]): _weight(exported, one.target) for one in stored}
    weights |= {(name, name): tensor.detach() for name, tensor in code.constants.items()}
    written = {program.inputs[place] for place in code.written}
    inputs = tuple(
        ConstantInput(one.name, _constant(one)) if one.node is None else _tensor_input(one, calls[one.node], written)
        for one in values
    )
    registered = frozenset(one.name for one in stored if one.kind is not InputKind.CONSTANT_TENSOR)
    symbols, relations = _sizes(tensors)
    _check_ranges(exported.range_constraints, symbols, values)
    return Exported(
        program, code, weights, registered, parameters, inputs, input_tree, module.output_tree, symbols, relations,
        sites, tuple(one for one in module.leaves(exported.call_spec.in_spec) if isinstance(one, torch.Tensor)),
    )  # fmt: skip


def _refusal(error: Exception) -> str:
    """What torch.export says, without its hints for debugging; where the model branches on values, its line."""
    text = str(error)
    if isinstance(error, GuardOnDataDependentSymNode):
        call = re.search(r'File "([^"]+)", line (\d+)', text.partition("The following call raised this error:")[2])
        where = f", at {call[1]}:{call[2]}" if call else ""
        return f"the model decides by a tensor's value what it computes, which a package cannot{where}"
    said = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip()]
    violated = said[0].startswith("Constraints violated") and len(said) > 1
    return f"torch.export cannot export the model: {said[1] if violated else said[0]}"


@dataclass(frozen=True)
class _Input:
    """A placeholder of the graph: a weight's, or a value's that the caller gives; no node if that is no tensor.

    name: what messages and the manifest call it.
    target: what torch.export calls a weight.
    """

    name: str
    kind: InputKind
    node: Any
    constant: Any = None
    target: str = ""


def _names(tree: Any, parameters: Sequence[str]) -> Iterator[str]:
    """What messages call each value of a call."""
    (_, positional, named) = tree
    for index, child in enumerate(positional[1:]):
        yield from names_in_tree(child, parameters[index] if index < len(parameters) else f"input {index}")
    for key, child in zip(named[1], named[2:], strict=True):
        yield from names_in_tree(child, str(key))


def _inputs(exported: Any, module: PlainModule, names: Iterator[str]) -> tuple[list[_Input], list[_Input]]:
    """The values that the caller gives, and the weights. Placeholders of other values than tensors are removed."""
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in exported.graph_signature.output_specs):
        raise CompilationError("the exported graph returns more than the model's results, which a package cannot hold")
    graph = exported.graph_module.graph
    values, stored = [], []
    for spec, node in zip(exported.graph_signature.input_specs, graph.find_nodes(op="placeholder"), strict=True):
        if spec.kind in _STORED:
            target = str(spec.target)
            stored.append(_Input(module.name_of(target), spec.kind, node, target=target))
        elif spec.kind is not InputKind.USER_INPUT:
            raise CompilationError(f"{spec.target or spec.arg.name} is a {spec.kind.name}, which a package cannot hold")
        elif isinstance(spec.arg, TensorArgument):
            values.append(_Input(next(names), spec.kind, node))
        elif isinstance(spec.arg, ConstantArgument) and not node.users:
            values.append(_Input(next(names), spec.kind, None, spec.arg.value))
            graph.erase_node(node)
        else:
            raise CompilationError(f"input {next(names)} is a number that may change; only sizes of tensors may")
    exported.graph_module.recompile()
    return values, stored


def _parameters(model: Callable[..., Any], args: Sequence[Any]) -> tuple[str, ...]:
    """Names of the positional inputs; fewer, if they go into ``*args``."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    forward = model.forward if isinstance(model, torch.nn.Module) else model
    names = [one.name for one in signature(forward).parameters.values() if one.kind in kinds]
    return tuple(names[: len(args)])


def _compiled(gm: torch.fx.GraphModule, values: Sequence[Any], target: str) -> GraphCode:
    """Compile the graph as Dynamo's are. Raises CompilationError if torchport leaves it to another compiler."""
    checked = request(None, {"target": target})
    with (
        torch.no_grad(),
        events.capture() as happened,
        without_graph_caches(),
        every_size(),
        capture_kernels(program=True) as captured,
    ):
        try:
            compile_graph(gm, values, checked)
        except InductorError as error:
            raise CompilationError(f"Inductor cannot compile the exported graph: {error}") from error
    if len(captured.graphs) != 1:
        reasons = [str(event) for event in happened if isinstance(event, events.Fallback)]
        raise CompilationError(f"torchport does not compile this graph: {'; '.join(reasons) or 'nothing is computed'}")
    return captured.graphs[0]


def _locator(graph: torch.fx.Graph) -> Callable[[str, Sequence[str]], str]:
    """Finds the line of the model that called an operator, or else that made one of the nodes."""
    traces = [(str(node.target), node.name, node.meta.get("stack_trace") or "") for node in graph.nodes]

    def locate(operator: str, nodes: Sequence[str]) -> str:
        found = [trace for target, _, trace in traces if target == operator]
        found += [trace for _, name, trace in traces if name in nodes]
        places = [
            line.strip() for trace in found for line in trace.splitlines()[::-1] if line.strip().startswith("File ")
        ]
        return places[0] if places else ""

    return locate


def _weight(exported: Any, name: str) -> torch.Tensor:
    found = exported.state_dict.get(name)
    tensor: torch.Tensor = exported.constants[name] if found is None else found
    _check_device(name, tensor)
    return tensor.detach()


def _check_device(name: str, tensor: torch.Tensor) -> None:
    if tensor.device.type != "cpu":
        raise CompilationError(f"weight {name} is on {tensor.device}; packages run on CPUs")


def _constant(one: _Input) -> bool | int | float | str | None:
    if one.constant is None or isinstance(one.constant, (bool, int, float, str)):
        return one.constant
    raise CompilationError(f"input {one.name} is a {type(one.constant).__name__}, which a package cannot hold")


def _tensor_input(one: _Input, input_: str, written: set[str]) -> TensorInput:
    value = one.node.meta["val"]
    if value.device.type != "cpu":
        raise CompilationError(f"input {one.name} is on {value.device}; packages run on CPUs")
    sizes, strides = (tuple(map(_value, numbers)) for numbers in (value.shape, value.stride()))
    return TensorInput(one.name, input_, str(value.dtype).removeprefix("torch."), sizes, strides, input_ in written)


def _value(size: Any) -> Any:
    return value_of(size.node.expr) if isinstance(size, torch.SymInt) else int(size)


def _check_sizes(values: Sequence[Any]) -> None:
    """Raise CompilationError for a size that is a multiple, or a sum, of one that no input has."""
    sizes = [size.node.expr for value in values for size in value.shape if isinstance(size, torch.SymInt)]
    for size in sizes:
        if missing := size.free_symbols - set(sizes):
            raise CompilationError(
                f"an input has a dimension of size {size}, and none has one of size {missing.pop()}, as it must; "
                "let the dimension change by itself"
            )


def _check_ranges(asked: Mapping[Any, Any], found: Mapping[str, Range], values: Sequence[_Input]) -> None:
    """Raise CompilationError where the compiled graph holds for fewer of the sizes that were asked for.

    No highest value was asked for where the range is open: what kernels can index is the limit then. torch.export takes
    a size that changes for 2 or more.
    """
    for symbol, bounds in asked.items():
        wanted, here = _range(bounds), found.get(str(symbol))
        if here is None or (here.low <= max(wanted.low, 2) and (wanted.high is None or here.high == wanted.high)):
            continue
        place = next(
            f"dimension {dimension} of {one.name}"
            for one in values
            if one.node is not None
            for dimension, size in enumerate(getattr(one.node.meta["val"], "shape", ()))
            if isinstance(size, torch.SymInt) and symbol in size.node.expr.free_symbols
        )
        raise CompilationError(
            f"{place} would be {_text(here)} and not {_text(wanted)}, as the compiler decides by this size; "
            "ask for the smaller range, or make a program for each part of it ('also')"
        )


def _text(limits: Range) -> str:
    return f"{limits.low} and more" if limits.high is None else f"from {limits.low} to {limits.high}"


def _sizes(values: Sequence[Any]) -> tuple[dict[str, Range], tuple[Relation, ...]]:
    """The names that sizes have, with their ranges, and relations that must hold between them."""
    sizes = [size for value in values for size in (*value.shape, *value.stride()) if isinstance(size, torch.SymInt)]
    if not sizes:
        return {}, ()
    shapes = sizes[0].node.shape_env
    guards = [shapes.replace(guard.expr) for guard in shapes.guards]
    guards = [guard for guard in guards if guard.free_symbols]  # others are true
    used = {
        symbol for expression in (*(size.node.expr for size in sizes), *guards) for symbol in expression.free_symbols
    }
    symbols = {str(symbol): _range(shapes.var_to_range[symbol]) for symbol in sorted(used, key=str)}
    return symbols, tuple(Relation(value_of(guard), str(guard)) for guard in dict.fromkeys(guards))


def _range(found: Any) -> Range:
    return Range(int(found.lower), int(found.upper) if found.upper.is_Integer else None)
