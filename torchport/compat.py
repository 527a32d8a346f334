"""Private APIs of other projects: how they are named and looked up, and those of torch outside of Inductor.

Every private name that torchport touches is an entry of a table: here, in ``torchport.inductor.compat`` or in
``torchport.triton.compat``. tests/unit/test_contracts.py checks each against the installed version, and the user gets
one clear error where a version lacks one.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from torchport.errors import VersionError

__all__ = ["SUPPORTED", "TOUCHES", "Touch", "release", "resolver"]

SUPPORTED = MappingProxyType({"torch": "2.11 to 2.13", "triton": "3.6 and 3.7"})
"""Versions of each project that torchport is made for."""


def release(project: str) -> tuple[int, int]:
    """The installed release of a project, without importing it: (2, 13) of 2.13.0+cpu."""
    major, minor = version(project).split(".")[:2]
    return int(major), int(minor)


@dataclass(frozen=True)
class Touch:
    """One name of another project that is not part of its public API.

    ``path``: module and, after a colon, attributes: ``torch._inductor.config:patch``.
    ``use``: what torchport does with it.
    ``parameters``: names of its first parameters, in order, as far as calls or overrides rely on them.
    ``attributes``: attributes that it must have.
    ``methods``: methods that are called or overridden, each with the names of its first parameters.
    ``text``: pieces of its module's source that torchport relies on: generated text, attributes that it sets.
    ``fragility``: how likely a new version changes it: low, medium or high.
    ``checked``: versions that it was checked on.
    ``since``: the release from which on it is touched, where earlier ones do without.
    """

    path: str
    use: str
    parameters: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    methods: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text: tuple[str, ...] = ()
    fragility: str = "medium"
    checked: tuple[str, ...] = ("torch 2.11", "torch 2.12", "torch 2.13")
    since: tuple[int, int] = (0, 0)

    @property
    def project(self) -> str:
        """The distribution that has it."""
        return self.path.partition(".")[0].partition(":")[0]

    @property
    def is_touched(self) -> bool:
        """Whether torchport touches it in the installed version."""
        return release(self.project) >= self.since

    def find(self) -> Any:
        """The object. Raises VersionError where the installed version does not have it."""
        module, _, attributes = self.path.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for name in filter(None, attributes.split(".")):
                found = getattr(found, name)
        except (ImportError, AttributeError) as error:
            project = self.project
            raise VersionError(
                f"{project} {version(project)} has no {self.path.replace(':', '.')} ({self.use}): torchport supports "
                f"{project} {SUPPORTED[project]}; install one of these"
            ) from error
        return found


def resolver(module: str, touches: Mapping[str, Touch]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that finds the names of its table when they are first asked for."""

    @functools.cache
    def find(name: str) -> Any:
        if name not in touches:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return touches[name].find()

    return find


TOUCHES: Mapping[str, Touch] = MappingProxyType(
    {
        "torch_c": Touch(
            "torch._C",
            "sizes of a package do not depend on which of aten's convolutions fits the example",
            attributes=("_select_conv_backend",),
            fragility="high",
        ),
        "ShortenTraceback": Touch(
            "torch._dynamo.exc:ShortenTraceback",
            "errors of a user's options reach the user without Dynamo's frames",
            fragility="low",
        ),
        "log_graph_break": Touch(
            "torch._dynamo.symbolic_convert:InstructionTranslatorBase.log_graph_break",
            "graph breaks, their places and reasons for explain(), read from the structured trace",
            text=("dynamo_graph_break_reason", "Graph break in user code at ", "Graph Break Reason: "),
        ),
        "InstructionTranslator": Touch(
            "torch._dynamo.symbolic_convert:InstructionTranslator",
            "the backend that a graph is traced for",
            attributes=("current_tx",),
            text=("output.compiler_fn",),
        ),
        "InstructionTranslatorBase": Touch(
            "torch._dynamo.symbolic_convert:InstructionTranslatorBase",
            "headers of log lines are made where they are shown",
            methods={"get_line_of_code_header": ("self", "lineno")},
        ),
        "LocalMapWrappedHigherOrderVariable": Touch(
            "torch._dynamo.variables.higher_order_ops:LocalMapWrappedHigherOrderVariable",
            "DTensor's context parallelism is not imported to see whether a function is its",
            methods={"should_wrap_in_hop": ("value",)},
            text=("from torch.distributed.tensor.experimental._func_map import _local_map_wrapped",),
            fragility="high",
        ),
        "is_traceable_wrapper_subclass": Touch(
            "torch.utils._python_dispatch:is_traceable_wrapper_subclass",
            "tensors that are made of others are taken apart for packages",
            parameters=("t",),
            fragility="low",
        ),
        "PyCodegen": Touch(
            "torch._dynamo.codegen:PyCodegen",
            "a graph's call does not tell a profiler that is not there how long its arguments took",
            methods={"make_call_generated_code": ("self", "fn_name")},
        ),
        "dynamo_config": Touch(
            "torch._dynamo:config", "the same, as this setting has it", attributes=("record_runtime_overhead",)
        ),
        "inductor_cache_dir": Touch(
            "torch._inductor.runtime.cache_dir_utils:cache_dir",
            "compiled graphs are exported from, and imported into, Inductor's folder",
        ),
        "CompileContext": Touch(
            "torch._guards:CompileContext",
            "which compilation of a function this is",
            attributes=("current_compile_id",),
            text=("frame_compile_id: ",),
        ),
        "get_metrics_context": Touch(
            "torch._dynamo.utils:get_metrics_context",
            "which guard failed where a function is compiled again",
            text=("recompile_reason: ",),
        ),
        "default_store": Touch(
            "torch.distributed.distributed_c10d:_get_default_store",
            "ranks that compile a function again count themselves",
        ),
        "TorchCompileWrapper": Touch(
            "torch:_TorchCompileWrapper",
            "the backend that a graph is traced for",
            text=("self.compiler_fn = lookup_backend(",),
        ),
        "WrapBackendDebug": Touch(
            "torch._dynamo.repro.after_dynamo:WrapBackendDebug",
            "the backend that a graph is traced for",
            text=("._torchdynamo_orig_backend = ",),
        ),
        "DDPOptimizer": Touch(
            "torch._dynamo.backends.distributed:DDPOptimizer",
            "the backend that a graph is traced for, where Dynamo splits it for DistributedDataParallel",
            methods={"compile_fn": ("self", "gm", "example_inputs")},
            text=("self.backend_compile_fn = ",),
        ),
        "flex_attention": Touch(
            "torch.nn.attention.flex_attention",
            "graphs for torchport have FlexAttention on any device, with gradients",
            methods={
                "_apply_kernel_options": tuple("query key value return_lse kernel_options return_aux".split()),
                "_validate_device": ("query", "key", "value"),
            },
            text=("_apply_kernel_options(\n", "_validate_device(query, key, value)", 'kernel_options["OUTPUT_MAX"]'),
        ),
        "reset_dynamo": Touch("torch._dynamo:reset", "models are compiled anew for each target", fragility="low"),
        "autograd_functions": Touch(
            "torch._C:_autograd",
            "saved tensors of a graph with memory of its own are fetched before hooks see them",
            attributes=("_top_saved_tensors_default_hooks",),
        ),
        "guard_functions": Touch(
            "torch._C._dynamo:guards",
            "buffers of generated code are allocated, and their addresses read, as Inductor's C++ code does",
            attributes=("_empty_strided_cpu", "_reinterpret_tensor"),
        ),
        "storage_use_count": Touch(
            "torch._C:_storage_Use_Count", "memory of results is used again where nobody else has a share in it"
        ),
        "callback_handler": Touch(
            "torch._dynamo.callback:callback_handler",
            "the cycle collector is off while Dynamo traces for torchport",
            attributes=("start_callbacks",),
            methods={"register_start_callback": ("callback",), "register_end_callback": ("callback",)},
            fragility="low",
        ),
        "convert_frame": Touch(
            "torch._dynamo.convert_frame",
            "the cycle collector stays off until Dynamo has collected what compiling left",
            attributes=("_compile", "config.run_gc_after_compile"),
            text=("if torch._dynamo.config.run_gc_after_compile:", "gc.collect("),
            fragility="low",
        ),
        "library_utils": Touch(
            "torch._library.utils",
            "where an operator is registered is known without reading files",
            methods={"get_source": ("stacklevel",)},
            text=("inspect.getframeinfo(sys._getframe(stacklevel))", 'f"{frame.filename}:{frame.lineno}"'),
        ),
        "CacheArtifact": Touch(
            "torch.compiler._cache:CacheArtifact",
            "base class; kernels are among the artifacts of torch.compiler.save_cache_artifacts",
            methods={"populate_cache": ("self",), "type": ()},
            text=("key: str", "content: bytes"),
            fragility="high",
        ),
        "CacheArtifactFactory": Touch(
            "torch.compiler._cache:CacheArtifactFactory",
            "torch learns to read kernels among artifacts",
            methods={"register": ("artifact_cls",)},
            fragility="high",
        ),
        "CacheArtifactManager": Touch(
            "torch.compiler._cache:CacheArtifactManager",
            "kernels that a process uses are added to its artifacts",
            methods={"record_artifact": ("artifact_type", "key", "content")},
            fragility="high",
        ),
        "TorchDispatchMode": Touch(
            "torch.utils._python_dispatch:TorchDispatchMode",
            "the recorder's mode does not keep Dynamo from compiling",
            attributes=("_should_skip_dynamo",),
        ),
        "disable_current_modes": Touch(
            "torch.utils._python_dispatch:_disable_current_modes",
            "recording and emulation compute without being seen by dispatch modes",
        ),
        "current_graph_task": Touch(
            "torch._C:_current_graph_task_id", "a recording tells operators of gradients from others"
        ),
        "TracingContext": Touch(
            "torch._guards:TracingContext",
            "operators that run while a graph is compiled are not the model's",
            attributes=("try_get",),
        ),
        "resolve_process_group": Touch(
            "torch.distributed.distributed_c10d:_resolve_process_group",
            "a recording names the ranks of a functional collective's group",
            fragility="low",
        ),
        "OptimizedModule": Touch("torch._dynamo:OptimizedModule", "a recording leaves compiled modules alone"),
        "len_torch_dispatch_stack": Touch(
            "torch._C:_len_torch_dispatch_stack", "an operator that no dispatch mode observes is called directly"
        ),
        "forward_ad": Touch(
            "torch.autograd.forward_ad",
            "operators without forward-mode derivatives refuse tangents",
            attributes=("_current_level",),
            fragility="low",
        ),
        "functorch": Touch(
            "torch._C:_functorch",
            "an operator that no functorch transform observes is called directly",
            attributes=("peek_interpreter_stack",),
        ),
        "OPDEFS": Touch(
            "torch._library.custom_ops:OPDEFS",
            "a recording keeps the source of custom operators",
            text=("self._init_fn = fn", "self._backend_fns"),
            fragility="low",
        ),
        "FunctionalTensorMode": Touch(
            "torch._subclasses.functional_tensor:FunctionalTensorMode",
            "compiled graphs see the body of an operator, as that of torch.library.triton_op",
        ),
        "triton_ops_are_kept": Touch(
            "torch.export._trace:custom_triton_ops_decomposition_disabled",
            "an exported program keeps operators whole, as those of torch.library.triton_op",
        ),
        "DispatchKey": Touch(
            "torch._C:DispatchKey", "emulated operators call the CPU's own kernel", attributes=("CPU",)
        ),
        "ExcludeDispatchKeyGuard": Touch("torch._C:_ExcludeDispatchKeyGuard", "autocast casts once"),
        "eval_frame": Touch(
            "torch._C._dynamo:eval_frame",
            "the code of a device's operators is not traced by Dynamo, where a model calls them between two graphs",
            attributes=("set_code_exec_strategy", "_FrameAction", "_FrameExecStrategy"),
        ),
        "from_dlpack": Touch("torch._C:_from_dlpack", "a DLPack capsule becomes a tensor with a storage of its own"),
        "setup_python_backend": Touch(
            "torch.utils.backend_registration:_setup_privateuseone_for_python_backend",
            "the device type torchport: hooks, guard and module without a C++ extension",
            parameters=("rename", "backend_module"),
        ),
        "numbers_are_tensors": Touch(
            "torch._C:_should_allow_numbers_as_tensors", "which operators take numbers in place of tensors"
        ),
        "compile_lock": Touch(
            "torch._dynamo.convert_frame:compile_lock", "operators are not traced while a graph is compiled"
        ),
        "registrations": Touch(
            "torch._C:_dispatch_get_registrations_for_dispatch_key", "operators that torch makes of their out forms"
        ),
        "get_chromium_event_logger": Touch(
            "torch._dynamo.utils:get_chromium_event_logger",
            "phases of a compilation and their times (torchport.runtime.torch_phases)",
            text=("chromium_log.log_event_start(", "chromium_log.log_event_end("),
        ),
        "get_kernel": Touch("torch.library:get_kernel", "views on the device are computed by torch's CPU kernels"),
        "DispatchKeySet": Touch("torch._C:DispatchKeySet", "emulated operators call the CPU's own kernel"),
    }
)
"""Names of torch outside of Inductor.

``torch.utils._pytree``, the public methods of ``TorchDispatchMode`` and ``torch._ops`` are not listed: torch documents
them.
"""

_find = resolver(__name__, TOUCHES)


def __getattr__(name: str) -> Any:
    return _find(name)
