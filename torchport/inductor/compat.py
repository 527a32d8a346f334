"""Everything of torch._inductor that torchport touches; see ``torchport.compat``.

``from torchport.inductor.compat import compile_fx`` finds the name when it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torchport.compat import Touch, resolver

__all__ = ["TOUCHES"]

_INDUCTOR = "torch._inductor"

TOUCHES: Mapping[str, Touch] = MappingProxyType(
    {
        # Compiling a graph
        "compile_fx": Touch(
            f"{_INDUCTOR}.compile_fx:compile_fx",
            "forward and backward graphs of one call of torch.compile",
            parameters=("model_", "example_inputs_", "inner_compile", "config_patches", "decompositions"),
        ),
        "compile_fx_inner": Touch(
            f"{_INDUCTOR}.compile_fx:compile_fx_inner",
            "one FX graph: lowering, scheduling and code generation",
            parameters=("gm", "example_inputs"),
        ),
        "InductorError": Touch(
            f"{_INDUCTOR}.exc:InductorError", "failed kernels are found in the error that Inductor wraps theirs in"
        ),
        "config": Touch(
            f"{_INDUCTOR}.config",
            "settings in force while one graph is compiled; options are checked by name and type",
            attributes=("patch", "get_config_copy", "get_type", "fx_graph_cache", "post_grad_custom_post_pass"),
            fragility="low",
        ),
        "functorch_config": Touch(
            "torch._functorch.config",
            "graphs are captured without a cache",
            attributes=("patch", "enable_autograd_cache"),
            fragility="low",
        ),
        "compiler_config": Touch(
            "torch.compiler.config",
            "the target is part of cache keys",
            attributes=("patch", "cache_key_tag"),
            fragility="low",
        ),
        "list_mode_options": Touch(f"{_INDUCTOR}:list_mode_options", "modes of torch.compile", fragility="low"),
        "select_decomp_table": Touch(
            f"{_INDUCTOR}.decomposition:select_decomp_table", "Inductor's decompositions, and those of attention"
        ),
        "lowerings": Touch(f"{_INDUCTOR}.lowering:lowerings", "which operations get generated kernels"),
        "fallbacks": Touch(f"{_INDUCTOR}.lowering:fallbacks", "which operations are left to aten"),
        "CustomGraphPass": Touch(
            f"{_INDUCTOR}.custom_graph_pass:CustomGraphPass",
            "torchport's pass over the FX graph before lowering",
            attributes=("uuid",),
            fragility="low",
        ),
        "TracingContext": Touch(
            "torch._guards:TracingContext",
            "how many results of a forward graph the user sees",
            attributes=("try_get",),
        ),
        "V": Touch(
            f"{_INDUCTOR}.virtualized:V",
            "the graph and kernel that are being compiled",
            attributes=("set_choices_handler",),
            fragility="high",
        ),
        "ops": Touch(f"{_INDUCTOR}.virtualized:ops", "operations inside a kernel that is being generated"),
        "ir": Touch(
            f"{_INDUCTOR}.ir",
            "which FX node each buffer of a graph holds; library calls and user-defined kernels",
            attributes=(
                "AssertScalar",
                "Buffer",
                "DynamicScalar",
                "ExternKernel",
                "InputBuffer",
                "MultiOutput",
                "MultiOutputLayout",
                "NoneLayout",
                "NopKernel",
                "ReinterpretView",
                "StorageBox",
                "TensorBox",
                "UserDefinedTritonKernel",
            ),
            fragility="high",
        ),
        # Code generation
        "DeviceCodegen": Touch(
            f"{_INDUCTOR}.codegen.common:DeviceCodegen",
            "torchport's code generation for a device, while a graph compiles",
            parameters=("scheduling", "wrapper_codegen", "cpp_wrapper_codegen", "fx_wrapper_codegen"),
        ),
        "device_codegens": Touch(
            f"{_INDUCTOR}.codegen.common:device_codegens",
            "the table that Inductor looks a device's code generation up in",
        ),
        "init_backend_registration": Touch(
            f"{_INDUCTOR}.codegen.common:init_backend_registration", "the table is filled before it is changed"
        ),
        "BackendFeature": Touch(
            f"{_INDUCTOR}.codegen.common:BackendFeature",
            "sorting is left to aten",
            attributes=("SORT",),
            fragility="low",
        ),
        "CSEVariable": Touch(f"{_INDUCTOR}.codegen.common:CSEVariable", "dtypes of values inside a kernel"),
        "EnableReduction": Touch(
            f"{_INDUCTOR}.codegen.simd_kernel_features:EnableReduction",
            "tilings of a kernel's nodes",
            attributes=("filter",),
        ),
        "FixedTritonConfig": Touch(
            f"{_INDUCTOR}.codegen.triton:FixedTritonConfig",
            "one configuration a kernel",
            parameters=("config",),
            fragility="high",
        ),
        "TritonKernel": Touch(
            f"{_INDUCTOR}.codegen.triton:TritonKernel",
            "base class; names of kernels are read from a comment in the source",
            attributes=("codegen_kernel", "overrides"),
            text=("triton_heuristics.",),
            fragility="high",
        ),
        "TritonKernelOverrides": Touch(
            f"{_INDUCTOR}.codegen.triton:TritonKernelOverrides",
            "base class; spellings that are wrong for some values",
            attributes=("neg", "signbit", "floordiv"),
            text=('"mutated_arg_names"', "atomic_add_found"),
        ),
        "TritonScheduling": Touch(
            f"{_INDUCTOR}.codegen.triton:TritonScheduling",
            "base class; kernels are keyed and loaded by torchport",
            attributes=("kernel_type", "backend_features", "define_kernel"),
            fragility="high",
        ),
        "emit_kernel_to_wrapper": Touch(
            f"{_INDUCTOR}.codegen.triton:TritonScheduling._emit_kernel_to_wrapper",
            "overridden: writes load_kernel calls",
            parameters=(
                "self",
                "wrapper",
                "kernel",
                "src_code",
                "kernel_name",
                "subs_name",
                "node_schedule",
                "kernel_path",
                "get_kernel_metadata",
            ),
            fragility="high",
        ),
        "get_nd_tilings": Touch(
            f"{_INDUCTOR}.codegen.triton:TritonScheduling.get_nd_tilings",
            "overridden: equal nodes are matched once",
            parameters=("node_schedule", "pointwise_numel", "reduction_numel"),
            fragility="high",
        ),
        "InductorChoices": Touch(
            f"{_INDUCTOR}.choices:InductorChoices",
            "base class; block sizes",
            attributes=("triton_kernel_kwargs", "should_use_persistent_reduction", "reduction_split_factor"),
            fragility="high",
        ),
        "triton_kernel_kwargs": Touch(
            f"{_INDUCTOR}.choices:InductorChoices.triton_kernel_kwargs",
            "overridden: fixes the configuration",
            parameters=("self", "kernel_cls", "features", "groups", "kernel_kwargs"),
            fragility="high",
        ),
        "reduction_split_factor": Touch(
            f"{_INDUCTOR}.choices:InductorChoices.reduction_split_factor",
            "overridden: splits reductions for CPUs",
            parameters=("device", "reduction_numel_hint", "numel_hint", "inner_reduction"),
            fragility="high",
        ),
        "ReductionHint": Touch(
            f"{_INDUCTOR}.runtime.hints:ReductionHint",
            "which dimension is contiguous",
            attributes=("INNER", "OUTER", "OUTER_TINY"),
            fragility="low",
        ),
        "next_power_of_2": Touch(f"{_INDUCTOR}.runtime.runtime_utils:next_power_of_2", "block sizes", fragility="low"),
        "MemoryDep": Touch(f"{_INDUCTOR}.dependencies:MemoryDep", "keys of tilings"),
        "SchedulerNode": Touch(f"{_INDUCTOR}.scheduler:SchedulerNode", "keys of tilings"),
        "IndentedBuffer": Touch(f"{_INDUCTOR}.utils:IndentedBuffer", "a kernel's source as text", fragility="low"),
        "OrderedSet": Touch("torch.utils._ordered_set:OrderedSet", "features of the code generation", fragility="low"),
        "PythonWrapperCodegen": Touch(
            f"{_INDUCTOR}.codegen.wrapper:PythonWrapperCodegen",
            "base class; the code around the kernels of a graph",
            attributes=(
                "define_kernel",
                "generate",
                "generate_after_suffix",
                "generate_kernel_call",
                "prepare_triton_kernel_call",
                "write_triton_header_once",
            ),
            text=("empty_strided", "{self.comment} reuse"),
            fragility="high",
        ),
        "wrapper_create": Touch(
            f"{_INDUCTOR}.codegen.wrapper:PythonWrapperCodegen.create",
            "overridden: torchport's wrapper at the top",
            parameters=("is_subgraph", "subgraph_name", "parent_wrapper", "partition_signatures"),
            fragility="high",
        ),
        "generate_kernel_call_helper": Touch(
            f"{_INDUCTOR}.codegen.wrapper:PythonWrapperCodegen._generate_kernel_call_helper",
            "overridden: launches",
            parameters=("self", "kernel_name", "call_args"),
            fragility="high",
        ),
        # Compiled graphs
        "CompiledFxGraph": Touch(
            f"{_INDUCTOR}.output_code:CompiledFxGraph",
            "calls of compiled graphs are observed while a recording is open",
            attributes=("__call__", "post_compile"),
        ),
        "CachingAutotuner": Touch(
            f"{_INDUCTOR}.runtime.triton_heuristics:CachingAutotuner",
            "launches of Inductor's own kernels are observed while a recording is open",
            attributes=("run",),
            fragility="high",
        ),
        "GridExpr": Touch(
            f"{_INDUCTOR}.runtime.triton_heuristics:GridExpr",
            "the grid of Inductor's own kernels",
            attributes=("from_meta", "eval_slow"),
            fragility="high",
        ),
    }
)
"""Names of Inductor by the name they have here."""

_find = resolver(__name__, TOUCHES)


def __getattr__(name: str) -> Any:
    return _find(name)
