"""Records what models run eagerly: the operators of each call of a module, and of its gradients."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from torchport.compat import OptimizedModule, TracingContext, current_graph_task
from torchport.numerics.recording.eager_graph import EagerGraph, key_of
from torchport.numerics.recording.first_launch import FirstLaunch
from torchport.numerics.recording.graph_calls import Graph, GraphCall
from torchport.numerics.recording.launch_writer import LaunchWriter
from torchport.numerics.recording.memory import without_dispatch_modes
from torchport.numerics.recording.operand import Operand
from torchport.numerics.recording.operators import COLLECTIVES, arguments_of, repeat_call, returned_tensors
from torchport.numerics.recording.overhead import OverheadBudget
from torchport.numerics.recording.site import Site
from torchport.runtime.operators import HIDDEN_VIEWS, UNINITIALIZED, is_plain, tensors_in, written_arguments

__all__ = ["EagerRecorder"]


class EagerRecorder(TorchDispatchMode):
    """Records the operators of a model's calls while it is active, in the thread that opened the recording.

    counts: to be added to the run's
    """

    supports_higher_order_operators = True

    def __init__(self, model: torch.nn.Module, writer: LaunchWriter, calls: int, compiled: Callable[[], bool]) -> None:
        """``model``: what is recorded. ``calls``: of a graph that are stored with tensors. ``compiled``: whether a
        compiled graph runs.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self._model = model
        self._writer, self._calls, self._compiled = writer, calls, compiled
        self._modules: list[torch.nn.Module] = []
        self._paths = {id(inner): path for path, inner in model.named_modules(remove_duplicate=False)}
        self._call: _EagerCall | None = None
        self._made: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile works under this mode."""
        return True

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record until the context closes."""
        with ExitStack() as stack:
            for module in _eager_modules(self._model):
                stack.callback(module.register_forward_pre_hook(self._enter).remove)
                stack.callback(module.register_forward_hook(self._leave, always_call=True).remove)
            stack.callback(self._finish)
            stack.enter_context(self)
            yield

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(kind.__module__.startswith("torch.distributed") for kind in types):
            return NotImplemented  # a DTensor: what it calls is seen here next
        if func.namespace in COLLECTIVES:
            return func(*args, **kwargs)  # recorded by ``recording.collectives``, if there are several ranks
        backward = current_graph_task() != -1
        call = self._call
        if (
            call is None
            or self._compiled()
            or TracingContext.try_get() is not None
            or (not self._modules and not backward)
        ):
            return func(*args, **kwargs)
        if not isinstance(func, torch._ops.OpOverload) or not _recordable(args, kwargs):
            self._writer.store.note(f"operation {func} was not recorded: it is no plain operator on plain tensors")
            return func(*args, **kwargs)
        if backward and call.graph.direction != "backward":
            self._finish()
            call = self._call = self._new("backward", call.names)
        return call.run(func, args, kwargs, self._module())

    def _enter(self, module: torch.nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() or self._compiled() or not (self._modules or module is self._model):
            return
        self._modules.append(module)
        if len(self._modules) > 1:
            return
        self._finish()
        names = {
            key_of(one): f"{'parameter' if isinstance(one, torch.nn.Parameter) else 'buffer'} {path}"
            for path, one in module.state_dict(keep_vars=True).items()
            if is_plain(one)
        }
        grad = torch.is_grad_enabled() and any(one.requires_grad for one in (*module.parameters(), *tensors_in(args)))
        self._call = self._new("forward" if grad else "inference", names)

    def _leave(self, module: torch.nn.Module, args: Any, result: Any) -> None:
        if torch.compiler.is_compiling() or not self._modules or self._modules[-1] is not module:
            return
        self._modules.pop()
        if not self._modules and self._call is not None:
            self._call.returned(result)

    def _module(self) -> dict[str, str] | None:
        if not self._modules:
            return None
        module = self._modules[-1]
        return {"path": self._paths.get(id(module), ""), "class": type(module).__name__}

    def _new(self, direction: str, names: Mapping[Any, str]) -> _EagerCall:
        self._made[direction] += 1
        graph = EagerGraph(direction, names, self._model)
        return _EagerCall(self._writer, graph, names, self._made[direction] <= self._calls)

    def _finish(self) -> None:
        """Write the last call of a graph."""
        call, self._call = self._call, None
        if call is not None:
            with without_dispatch_modes():
                self.counts += call.write(self._seen)


class _EagerCall:
    """One call of a model or of its gradients: the graph that grows, and its launches."""

    def __init__(self, writer: LaunchWriter, graph: EagerGraph, names: Mapping[Any, str], stored: bool) -> None:
        """``names``: of the graph. ``stored``: whether tensors are."""
        self.names = names
        self.graph = graph
        self._writer, self._stored = writer, stored and writer.level == "full"
        # The graph has its name when it is complete; lines are written with another one until then.
        about = Graph(uuid.uuid4().hex, {}, {}, None, False, OverheadBudget(math.inf, 1))
        self._call = GraphCall(about, 0)
        self._inputs: list[Operand] = []

    def run(self, func: Any, args: Any, kwargs: Any, module: dict[str, str] | None) -> Any:
        """Call an operator and record it. Returns its result.

        One that writes into its arguments is recorded as the operator that returns what that one writes.
        """
        plain, given, options = _functional(func, args, kwargs)
        silent = func.is_view or func in UNINITIALIZED or func in HIDDEN_VIEWS
        first = None
        with without_dispatch_modes():
            for tensor in tensors_in([given, options]):
                self._read(tensor)
            encoded = self.graph.encoded(given, options)
            if not silent:
                operands = arguments_of(plain, given, options, self.graph.node_of)
                site = Site()
                site.first_launches = 0 if self._stored else self._writer.calls  # then only statistics are kept
                first = FirstLaunch(self._writer, self._call, site, operands)
        result = func(*args, **kwargs)
        flags = None if silent else repeat_call(self._call, func, args, kwargs, result)
        with without_dispatch_modes():
            node = self.graph.call(plain, encoded, result, module)
            for tensor in written_arguments(func._schema, args, kwargs):
                self.graph.overwritten(tensor)
            if first is not None:
                self._write(first, plain, node, result, flags)
        return result

    def returned(self, result: Any) -> None:
        """The model's result."""
        with without_dispatch_modes():
            operands = [
                Operand(str(index), "out", None, self.graph.node_of(tensor), tensor)
                for index, tensor in enumerate(tensors_in(result))
                if is_plain(tensor)
            ]
            self.graph.outputs = [operand.node for operand in operands]
            for operand in operands:
                self._describe(operand)
            self._boundary("output", operands)

    def write(self, seen: Counter[str]) -> Counter[str]:
        """Write the graph and the launches. ``seen``: calls of each graph. Returns counts."""
        described = {
            "fx": self.graph.dump(), "target": "cpu", "eager": True, "names": self.graph.names,
            "direction": self.graph.direction, "inputs": [], "outputs": [], "buffers": {},
            "changed": {}, "rewritten": [], "kernels": {},
        }  # fmt: skip
        self._boundary("input", self._inputs)
        text = json.dumps(described, sort_keys=True)
        sha = hashlib.sha256(text.encode()).hexdigest()[:32]
        number, provisional = seen[sha], self._call.graph.sha
        seen[sha] += 1
        self._writer.store.put_json("graphs", sha, described)
        lines = [
            line.replace(f'"graph": "{provisional}", "call": 0', f'"graph": "{sha}", "call": {number}')
            for line in self._call.lines
        ]
        self._writer.store.append(lines, flush=True)
        return self._call.counts + Counter(calls_seen=1)

    def _read(self, tensor: torch.Tensor) -> None:
        name, new = self.graph.read(tensor)
        if new:
            operand = Operand(name, "in", name, name, tensor)
            self._describe(operand)
            self._inputs.append(operand)

    def _write(self, first: FirstLaunch, func: Any, node: str, result: Any, flags: list[str] | None) -> None:
        first.operands += [
            Operand(f"result[{index}]" if index else "result", "out", None, self.graph.node_of(one), one)
            for index, one in enumerate(returned_tensors(result))
        ]
        if flags is not None:
            first.checks.append("repeat")
            first.flags += flags
        first.summarize()
        first.write("extern", operation=str(func), nodes=[node])

    def _boundary(self, kind: str, operands: list[Operand]) -> None:
        """Write inputs or outputs that were described."""
        reason = self._writer.missing_reason(operands) if self._stored else "only statistics were kept of this call"
        self._writer.write_launch(self._call, kind, operands, unrecorded=reason)

    def _describe(self, operand: Operand) -> None:
        """Take statistics of an input or output, and store it, before the model writes into it."""
        operand.summary = self._writer.summary(self._call, operand.value)
        if self._stored:
            sha = self._writer.store_tensor(self._call, operand.value)
            operand.before, operand.after = (sha, None) if operand.role == "in" else (None, sha)


def _eager_modules(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The modules in ``module`` that run eagerly, itself included; each once."""
    waiting, seen = [module], set()
    while waiting:
        one = waiting.pop()
        if one in seen or isinstance(one, OptimizedModule) or one._compiled_call_impl is not None:
            continue
        seen.add(one)
        yield one
        waiting += one.children()


def _functional(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
    """The operator that returns what ``func`` writes, and its arguments; ``func`` itself if there is none."""
    schema = func._schema
    if not schema.is_mutable:
        return func, args, kwargs
    namespace, _, name = schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    wanted = [(one.name, str(one.type)) for one in schema.arguments if not one.is_out]
    for overload in packet.overloads() if packet is not None else ():
        other = getattr(packet, overload)
        if not other._schema.is_mutable and [(one.name, str(one.type)) for one in other._schema.arguments] == wanted:
            outs = {one.name for one in schema.arguments if one.is_out}
            return other, args, {key: value for key, value in kwargs.items() if key not in outs}
    return func, args, kwargs


def _recordable(args: Any, kwargs: Any) -> bool:
    return all(map(is_plain, tensors_in([args, kwargs])))
