"""The Python code around the kernels of a graph: kernels are called directly, with no stream and no Triton."""

from __future__ import annotations

from typing import Any

import sympy

from torchport.errors import CompilationError
from torchport.inductor.capture import capturing
from torchport.inductor.codegen.description import DESCRIPTION, described, note_call
from torchport.inductor.codegen.externs import extern_calls
from torchport.inductor.codegen.results import is_kept, is_private
from torchport.inductor.compat import IndentedBuffer, PythonWrapperCodegen, TracingContext, V, config, ir
from torchport.inductor.kernels import attempt
from torchport.inductor.precision.applied import Applied, as_call
from torchport.inductor.quarantined import KernelsFailed, in_quarantine
from torchport.inductor.scope import Scope, Settings, current
from torchport.inductor.upstream.corrections import applies
from torchport.inductor.upstream.draws import keep_order
from torchport.inductor.upstream.results import distinct
from torchport.inductor.upstream.saved import counted_views
from torchport.runtime import events
from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.runtime.sanitizer import active
from torchport.triton.source import PAIRS

__all__ = ["DescribedWrapper", "TorchportWrapper"]

_IMPORT = "from torchport.inductor.kernels import Grid, load_kernel as torchport_kernel"
_EXTERNS = ("from torch._inductor.select_algorithm", "from torchport.inductor.library_calls")
"""Where the code of a graph imports ``extern_kernels`` from: as Inductor writes it, and without its code generators."""
_ALLOCATOR = "from torchport.torch_device.storage import allocator"
_SAVED = "from torchport.program.values import counted_view as torchport_counted_view"
_GRADIENTS = "from torchport.program.values import in_memory as torchport_in_memory"
_WIDENED = "from torchport.inductor.precision.applied import noted as torchport_precision"
_TAPED = "from torchport.inductor.taping import Taped as torchport_taped"
_KEPT = "from torchport.program.kept import Kept"
_KEEPING = "torchport_kept = Kept()"
_PRIVATE = "torchport_private = torchport_kept.private"
_OWN_MEMORY = (
    "from torchport.runtime.devices.host_operations import kernel_to_host as torchport_to_host",
    "from torchport.runtime.devices.session import on_device as torchport_on_device",
    "from torchport.runtime.devices.thread import empty_strided_cpu",
)
"""What the code of a graph imports where the target has memory of its own."""


class DescribedWrapper(PythonWrapperCodegen):
    """Inductor's wrapper and kernels, with the graph's description behind the code."""

    def generate_kernel_call(self, kernel_name: str, call_args: Any, **kwargs: Any) -> None:
        """Write a call, and note what it computes where the kernel is not torchport's."""
        note_call(kernel_name)
        super().generate_kernel_call(kernel_name, call_args, **kwargs)

    def define_user_defined_triton_kernel(self, kernel: Any, configs: Any, kwargs: Any, *args: Any) -> Any:
        """Write a user-defined kernel. Python floats are float32 to it, as when Triton launches it alone.

        Inductor takes a number computed from sizes for an integer; only its type matters here.
        """
        if not applies("float-arguments"):
            with config.patch(_use_fp64_for_unbacked_floats=True):
                return super().define_user_defined_triton_kernel(kernel, configs, kwargs, *args)
        run_time = {parameter.name for parameter in kernel.params if not parameter.is_constexpr}
        typed = {name: 0.5 if name in run_time and _is_float(value) else value for name, value in kwargs.items()}
        with config.patch(_use_fp64_for_unbacked_floats=False):
            return super().define_user_defined_triton_kernel(kernel, configs, typed, *args)

    def generate_after_suffix(self, result: Any) -> None:
        """Write what follows ``call``: functions around it, and the graph's description for recordings."""
        super().generate_after_suffix(result)
        scope = current()
        if scope is None:
            return
        settings = scope.settings
        if "precision" in settings.asked:
            result.writeline(_WIDENED)
            for applied in scope.widened or [Applied(lost="Inductor ran no passes over this graph")]:
                result.writeline(as_call(applied, settings.strict))
        if settings.own_memory:  # copies of tensors are kept up to date around the call
            result.writeline(f"call = torchport_on_device({settings.target!r}, call, {_results()!r})")
        if settings.call_wrapper is not None:
            result.writeline(f"call = {settings.call_wrapper.call}")
        if settings.tape != "off" and is_ours():
            kept = ", torchport_kept" if self.header.contains(_KEEPING) else ""
            result.writeline(f"call = torchport_taped(call, {settings.tape!r}{kept})")
        if settings.describe is not None:
            result.writeline(f"{DESCRIPTION} = {described(scope)!r}")


_ATTENTION = "import torchport.ops.attention.sdpa"
"""What the code of a graph imports that calls our attention (``torchport.inductor.attention.take_kernels``)."""


_EVERYWHERE = ("aten", "prims", "inductor")
_LOWERING = "import torch._inductor.lowering"
"""What the code of a graph imports that calls operators which only Inductor may have registered."""

_USERS = "@triton_heuristics.user_autotune("
_ARCHITECTURE = "cc=''"
"""Of the CPU, in the source of a user-defined kernel; Triton is given it as its target's architecture."""


def _architecture(settings: Settings) -> str:
    """What a user-defined kernel is told by its target's architecture; empty for nothing."""
    return settings.arithmetic or (PAIRS if settings.bf16_products == "pairs" and settings.device == "cpu" else "")


class TorchportWrapper(DescribedWrapper):
    """Inductor's wrapper, calling torchport's kernels by ``launch``."""

    @staticmethod
    def create(
        is_subgraph: bool, subgraph_name: str | None, parent_wrapper: Any, partition_signatures: Any = None
    ) -> Any:
        scope = current()
        if scope is not None and applies("random-order"):
            keep_order()
        if is_subgraph or scope is None:
            return PythonWrapperCodegen.create(is_subgraph, subgraph_name, parent_wrapper, partition_signatures)
        return DescribedWrapper() if scope.settings.stock else TorchportWrapper()

    def define_kernel(self, kernel_name: str, kernel_body: str, *args: Any, **kwargs: Any) -> None:
        """Write a kernel. A user-defined one, which Triton compiles, finds an emulated chip in its target.

        So it does with the option of pairs of bf16.
        """
        scope = current()
        architecture = "" if scope is None else _architecture(scope.settings)
        if architecture and _USERS in kernel_body:
            if kernel_body.count(_ARCHITECTURE) != 1:
                raise CompilationError(
                    f"kernel {kernel_name}: its device's properties do not say {_ARCHITECTURE}, so it cannot be told "
                    "how to compute; torchport does not know this version of torch",
                    kernel=kernel_name,
                )
            kernel_body = kernel_body.replace(_ARCHITECTURE, f"cc={architecture!r}")
        super().define_kernel(kernel_name, kernel_body, *args, **kwargs)

    def write_header(self) -> None:
        """Write the imports; calls of libraries are found without Inductor's templates."""
        super().write_header()
        written: str = self.imports.getvalue()
        self.imports: Any = IndentedBuffer()
        self.imports.splice(written.replace(*_EXTERNS))

    def codegen_inputs(self) -> None:
        """Write what follows the names of inputs. The gradients that a backward graph takes are put in memory."""
        super().codegen_inputs()
        # Not all are gradients: a DTensor's comes with its mesh and sizes.
        inputs = {name: value for name, value in V.graph.graph_inputs.items() if isinstance(value, ir.TensorBox)}
        tangents = [name for name in inputs if name.startswith("tangents_")]
        if V.graph.is_backward and tangents and applies("lazy-gradients"):
            self.header.writeline(_GRADIENTS)
            for name in tangents:
                self.prefix.writeline(f"{name} = torchport_in_memory({name})")

    def generate_return(self, output_refs: list[str]) -> None:
        """Write the results. Those that autograd keeps share and count writes as eager's do."""
        count = _results()
        if count is not None and applies("detached-results"):
            output_refs = distinct(output_refs[:count], V.graph.graph_outputs) + output_refs[count:]
        if count is not None and applies("saved-views"):
            self.header.writeline(_SAVED)
            output_refs = counted_views(output_refs, count, V.graph.graph_input_names, "torchport_counted_view")
        super().generate_return(output_refs)

    def write_triton_header_once(self) -> None:
        """Import torchport's loader. Triton is imported only for kernels that torchport does not load."""
        if not self.imports.contains(_IMPORT):
            self.imports.writeline(_IMPORT)
            if active():  # the sanitizer tracks uninitialized buffers
                self.header.writeline("from torchport.runtime.sanitizer.modes import empty_strided_cpu")

    def make_allocation(self, name: str, device: Any, dtype: Any, shape: Any, stride: Any, *more: Any) -> str:
        """Write an allocation. On a torch device it is a call of torchport's function, without torch's dispatcher.

        Large results of a training step's graphs get memory that the graph keeps.
        """
        scope = current()
        plain = more in ((), (None, False), (tuple(shape), False))  # allocated as large as it is, and not pinned
        sizes, strides = self.codegen_python_shape_tuple(shape), self.codegen_python_shape_tuple(stride)
        on_cpu = scope is not None and device.type == "cpu" and plain and is_ours()
        if scope is not None and on_cpu:
            kept = is_kept(name, dtype, shape, stride, _results(), scope.settings)
            if kept or is_private(name, dtype, shape, stride, scope.settings):
                if not self.header.contains(_KEEPING):
                    self.header.writelines((_KEPT, _KEEPING, _PRIVATE))
                return f"{name} = torchport_{'kept' if kept else 'private'}({sizes}, {strides}, {dtype})"
        if scope is None or device.type != DEVICE_TYPE or not plain:
            return str(super().make_allocation(name, device, dtype, shape, stride, *more))
        if not self.imports.contains(_ALLOCATOR):
            self.imports.writeline(_ALLOCATOR)
        empty = f"torchport_empty_{device.index or 0}"
        if not self.header.contains(line := f"{empty} = allocator({device.index or 0})"):
            self.header.writeline(line)
        return f"{name} = {empty}({sizes}, {strides}, {dtype})"

    def generate_fallback_kernel(self, node: Any) -> None:
        """Write a call of an operator; torchport's are there in a process that loads the code from a cache, too."""
        namespace = getattr(node.op_overload, "namespace", "")
        needed = _ATTENTION if namespace == "torchport" else "" if namespace in _EVERYWHERE else _LOWERING
        if needed and not self.imports.contains(needed):
            self.imports.writeline(needed)
        super().generate_fallback_kernel(node)

    def _generate_kernel_call_helper(self, kernel_name: str, call_args: Any, **kwargs: Any) -> None:
        scope = current()
        record = scope.kernels.get(kernel_name) if scope is not None else None
        if record is None or record.source is None:
            super().write_triton_header_once()
            if scope is not None and scope.settings.own_memory:  # a user-defined kernel may write anything
                self.writeline(f"torchport_to_host({kernel_name!r}, {', '.join(map(str, call_args))})")
            super()._generate_kernel_call_helper(kernel_name, call_args, **kwargs)
            return
        arguments = ", ".join(self.prepare_triton_kernel_call(call_args))
        record.launches += 1
        self.writeline(f"{kernel_name}.launch({arguments})")

    def generate(self, is_inference: bool) -> Any:
        """Write the code, then compile what is left of the kernels. Raises KernelsFailed, naming those that failed."""
        scope = current()
        if scope is None:
            return super().generate(is_inference)
        if scope.settings.own_memory:
            self.header.writelines(_OWN_MEMORY)
        if scope.settings.tape != "off":
            self.header.writeline(_TAPED)
        if scope.settings.call_wrapper is not None:
            self.header.writeline(scope.settings.call_wrapper.import_)
        generated = super().generate(is_inference)
        _compile_kernels(scope)
        if (captured := capturing()) is not None:
            for name, kernel in scope.sources().items():
                captured.kernels += [kernel] * scope.kernels[name].launches
            captured.externs += extern_calls()
        return generated


def _compile_kernels(scope: Scope) -> None:
    """Compile and link the graph's kernels. Raises KernelsFailed for those that fail or are in quarantine."""
    failures = in_quarantine(scope)
    if failures:
        raise KernelsFailed(failures)
    background = scope.background
    sources = scope.sources()
    todo = list(reversed(sources.items()))  # the background process began with the first
    ready = 0
    try:
        for wait in (False, True):  # what other processes are compiling just now comes last: ranks share the work
            later = []
            for name, kernel in todo:
                events.announce(events.Step(scope.graph, len(sources), ready, kernel.function))
                try:
                    done = attempt(
                        kernel.key,
                        kernel.function,
                        kernel.target,
                        kernel.types,
                        kernel.source,
                        kernel.operations,
                        background,
                        wait=wait,
                    )
                except CompilationError as error:
                    failures[name] = error
                else:
                    if done is None:
                        later.append((name, kernel))
                        continue
                ready += 1
            todo = later
    finally:
        if background is not None:
            background.stop()
    if failures:
        raise KernelsFailed(failures)


def _is_float(value: Any) -> bool:
    """Whether a number that is known at run time only is a float."""
    return isinstance(value, sympy.Expr) and not value.is_integer


def _results() -> int | None:
    """How many of the graph's results the user sees (the others go to the backward pass only); None for all."""
    context = TracingContext.try_get()
    if V.graph.is_inference or V.graph.is_backward or context is None or context.fw_metadata is None:
        return None
    return int(context.fw_metadata.num_forward)


def is_ours() -> bool:
    """Whether the outermost wrapper of the graph being compiled is a TorchportWrapper."""
    return type(V.graph.wrapper_code) is TorchportWrapper
