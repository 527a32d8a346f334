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
            text=("is_inference", "is_backward", "_boxed_call"),
        ),
        "aot_module_simplified": Touch(
            "torch._functorch.aot_autograd:aot_module_simplified",
            "a graph is taken out of AOTAutograd's cache as compile_fx does it, without importing that",
            parameters=("mod", "args", "fw_compiler", "bw_compiler", "partition_fn", "decompositions"),
            text=(
                "keep_inference_input_mutations",
                "inference_compiler",
                "compiler_config_extra",
                "AOTAutogradCache.try_load(",
            ),
            fragility="high",
            since=(2, 13),
        ),
        "SerializableAOTDispatchCompiler": Touch(
            "torch._functorch.aot_autograd:SerializableAOTDispatchCompiler",
            "AOTAutograd looks into its cache",
            parameters=("output_code_ty", "compiler_fn"),
        ),
        "OutputCode": Touch(f"{_INDUCTOR}.output_code:OutputCode", "what AOTAutograd's cache holds"),
        "BoxedBool": Touch(f"{_INDUCTOR}.utils:BoxedBool", "AOTAutograd's cache key, and what follows a hit"),
        "BoxedDeviceIndex": Touch(
            f"{_INDUCTOR}.cudagraph_utils:BoxedDeviceIndex", "AOTAutograd's cache key, and what follows a hit"
        ),
        "CompilerBisector": Touch(
            f"{_INDUCTOR}.compiler_bisector:CompilerBisector",
            "no shorter way into the cache while a fault is searched for",
            attributes=("get_backend",),
            fragility="low",
        ),
        "PyTreeCodeGen": Touch(
            "torch.fx.graph:_PyTreeCodeGen", "graphs that compile_fx changes before their cache key", fragility="low"
        ),
        "compiled_autograd": Touch(
            "torch._dynamo.compiled_autograd", "off while a graph is compiled", attributes=("_disable",)
        ),
        "detect_fake_mode": Touch("torch._guards:detect_fake_mode", "in force while a graph is compiled"),
        "enable_python_dispatcher": Touch(
            "torch._dispatch.python:enable_python_dispatcher", "in force while a graph is compiled"
        ),
        "codecache": Touch(
            f"{_INDUCTOR}.codecache",
            "cache keys are computed without importing code generators",
            attributes=("init_backend_registration", "custom_backend_passes", "torch_key.set"),
            methods={"FxGraphCache.cache_hit_post_compile": ("graph", "cache_info", "constants")},
            text=(
                "map(self._get_custom_pass_detail, custom_backend_passes.values())",
                "from .graph import GraphLowering\n",
                "if GraphLowering.save_output_code is not None:",
            ),
            fragility="high",
        ),
        "inductor_debug": Touch(
            f"{_INDUCTOR}.debug",
            "compiled graphs look into it at each call, and take it for imported",
            attributes=("RECORD_GRAPH_EXECUTION",),
        ),
        "extern_kernels": Touch(
            f"{_INDUCTOR}.select_algorithm:extern_kernels",
            "generated code calls products by these names",
            attributes=("mm", "addmm", "bmm", "baddbmm", "convolution"),
        ),
        "InductorError": Touch(
            f"{_INDUCTOR}.exc:InductorError", "failed kernels are found in the error that Inductor wraps theirs in"
        ),
        "UserError": Touch(
            "torch._dynamo.exc:UserError", "torch.export says what it cannot trace, or which range is not so"
        ),
        "GuardOnDataDependentSymNode": Touch(
            "torch.fx.experimental.symbolic_shapes:GuardOnDataDependentSymNode",
            "torch.export finds control flow that depends on values",
        ),
        "ConstraintViolationError": Touch(
            "torch.fx.experimental.symbolic_shapes:ConstraintViolationError",
            "torch.export finds an example's size outside of its range",
        ),
        "LoweringException": Touch(
            f"{_INDUCTOR}.exc:LoweringException",
            "an error of a lowering is found in the one that Inductor raises for it",
        ),
        "triton_compat": Touch(
            f"{_INDUCTOR}.runtime.triton_compat",
            "Inductor is told the key of the installed Triton",
            attributes=("HAS_TRITON", "triton_key"),
        ),
        "config": Touch(
            f"{_INDUCTOR}.config",
            "settings in force while one graph is compiled; options are checked by name and type",
            attributes=tuple(
                (
                    "patch get_config_copy get_type fx_graph_cache post_grad_custom_post_pass emulate_precision_casts "
                    "_use_fp64_for_unbacked_floats reorder_for_peak_memory reorder_for_locality fallback_random"
                ).split()
            ),
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
        "decomposition_table": Touch(
            "torch._decomp:decomposition_table", "operators that Inductor has no lowering for, by others"
        ),
        "lowerings": Touch(f"{_INDUCTOR}.lowering:lowerings", "which operations get generated kernels"),
        "lowering_module": Touch(
            f"{_INDUCTOR}.lowering",
            "maxima of pooling; which tensors Inductor cannot compute with; calls of packages' operators",
            attributes=("range_mask", "compute_indices_adaptive_pooling"),
            methods={
                "unsupported_input_tensor": ("t", "node"),
                "get_layout_constraint_tag": ("fn", "with_default"),
                "tag_to_layout_constraint": ("tag",),
                "make_fallback": ("op", "layout_constraint", "warn", "override_decomp"),
                "_max_pool_with_offsets": (
                    "x",
                    "kernel_size",
                    "stride",
                    "padding",
                    "dilation",
                    "ceil_mode",
                    "n_dim",
                ),
                "_adaptive_pooling_fn_with_idx": (
                    "start_index",
                    "end_index",
                    "kernel_maxes",
                    "in_sizes",
                    "out_sizes",
                    "pooling_fn",
                ),
            },
        ),
        "fallbacks": Touch(f"{_INDUCTOR}.lowering:fallbacks", "which operations are left to aten"),
        "CustomGraphPass": Touch(
            f"{_INDUCTOR}.custom_graph_pass:CustomGraphPass",
            "torchport's pass over the FX graph before lowering",
            attributes=("uuid",),
            fragility="low",
        ),
        "post_grad": Touch(
            f"{_INDUCTOR}.fx_passes.post_grad",
            "copies that keep results apart from inputs stay",
            attributes=("remove_noop_ops",),
            fragility="medium",
        ),
        "graph_compile": Touch(
            "torch._functorch._aot_autograd.graph_compile",
            "numbers that are tensors in a part of a graph only become constants",
            attributes=("tensorify_python_scalars",),
            fragility="medium",
        ),
        "tensorify": Touch(
            "torch.fx.passes._tensorify_python_scalars",
            "which numbers of a graph are read while it is compiled",
            attributes=("guard_scalar",),
            fragility="medium",
        ),
        "TensorifyState": Touch(
            "torch._dynamo.symbolic_convert:TensorifyState",
            "AOTAutograd does not have Dynamo trace a graph again, where that loses writes; numbers become constants",
            attributes=("force_specializations", "should_specialize", "specialize"),
            fragility="medium",
        ),
        "TensorVariable": Touch(
            "torch._dynamo.variables.tensor:TensorVariable",
            "sizes that operations in place change are noted",
            methods={"_sync_if_inplace_mutation": ("self", "tx", "version_before", "has_tensor_arg")},
        ),
        "RestartAnalysis": Touch(
            "torch._dynamo.exc:TensorifyScalarRestartAnalysis", "Dynamo traces again", ("args", "restart_reason")
        ),
        "TracingContext": Touch(
            "torch._guards:TracingContext",
            "how many results of a forward graph the user sees, which inputs AOTAutograd writes after it",
            attributes=("try_get",),
            text=("fw_metadata",),
        ),
        "ViewAndMutationMeta": Touch(
            "torch._functorch._aot_autograd.schemas:ViewAndMutationMeta",
            "which inputs a packaged graph writes, and whether AOTAutograd does more around it",
            text=("input_info", "mutates_data", "mutated_inp_runtime_indices", "num_intermediate_bases"),
        ),
        "PythonPrinter": Touch(
            "torch.utils._sympy.printers:PythonPrinter",
            "relations between sizes are written as Python's expressions, for packages",
            attributes=("doprint",),
            fragility="low",
        ),
        "V": Touch(
            f"{_INDUCTOR}.virtualized:V",
            "the graph and kernel that are being compiled",
            attributes=("set_choices_handler",),
            fragility="high",
        ),
        "ValueRanges": Touch(
            "torch.utils._sympy.value_ranges:ValueRanges",
            "how large a value computed from indices becomes",
            text=("is_int:",),
            fragility="low",
        ),
        "FloorDiv": Touch(
            "torch.utils._sympy.functions:FloorDiv", "dividends computed from indices must not wrap", fragility="low"
        ),
        "ModularIndexing": Touch(
            "torch.utils._sympy.functions:ModularIndexing",
            "dividends computed from indices must not wrap",
            fragility="low",
        ),
        "PythonMod": Touch(
            "torch.utils._sympy.functions:PythonMod", "dividends computed from indices must not wrap", fragility="low"
        ),
        "SymT": Touch(
            "torch.utils._sympy.symbol:SymT",
            "indices that a kernel computes",
            attributes=("INDIRECT",),
            fragility="low",
        ),
        "symbol_is_type": Touch(
            "torch.utils._sympy.symbol:symbol_is_type",
            "indices that a kernel computes",
            ("sym", "prefix"),
            fragility="low",
        ),
        "Layout": Touch(
            f"{_INDUCTOR}.ir:Layout",
            "strides that are expressions of sizes are compared",
            methods={"_stride_expr_ge_or_false": ("left", "right")},
            since=(2, 13),
        ),
        "Mod": Touch("torch.utils._sympy.functions:Mod", "strides that are expressions of sizes are compared"),
        "bound_sympy": Touch(
            "torch.utils._sympy.value_ranges:bound_sympy",
            "how large a value computed from indices becomes",
            parameters=("expr", "ranges"),
            fragility="low",
        ),
        "triton_type": Touch(
            "torch._inductor.codegen.triton:triton_type", "the type of a number in a kernel", ("dtype",)
        ),
        "ops": Touch(f"{_INDUCTOR}.virtualized:ops", "operations inside a kernel that is being generated"),
        "unset_fake_temporarily": Touch(
            "torch._subclasses.fake_tensor:unset_fake_temporarily",
            "the library's product is tried while a graph is compiled",
            fragility="low",
        ),
        "pointwise_cat": Touch(
            f"{_INDUCTOR}.lowering:pointwise_cat",
            "bytes that are unpacked are not written down",
            parameters=("inputs", "dim"),
        ),
        "DefaultHandler": Touch(
            f"{_INDUCTOR}.ops_handler:DefaultHandler",
            "base class: which operations a scan calls, what a computed weight reads",
            methods={"_default": ("self", "name", "args", "kwargs")},
        ),
        "ir": Touch(
            f"{_INDUCTOR}.ir",
            "which FX node each buffer of a graph holds; library calls and user-defined kernels",
            attributes=tuple(
                (
                    "AssertScalar Buffer.get_mutation_names Buffer.get_name Buffer.get_origin_node Buffer.get_size "
                    "Buffer.maybe_get_dtype Buffer.maybe_get_size DynamicScalar ExternKernel.op_overload "
                    "ExternKernel.python_kernel_name InputBuffer MultiOutputLayout NoneLayout NopKernel "
                    "Operation.get_origins Operation.get_read_names ReinterpretView StorageBox TensorBox "
                    "ComputedBuffer ExternKernel.realize_input ExternKernel.require_contiguous FixedLayout "
                    "MutationLayoutSHOULDREMOVE Scatter BaseView Pointwise View.dynamic_reshape_indexer "
                    "is_contiguous_strides_for_shape ConcatKernel.realize_into ConcatKernel.unwrap_storage "
                    "SliceView.create FlexibleLayout Loops.get_read_names IRNode.maybe_get_layout "
                    "NoneAsConstantBuffer ShapeAsConstantBuffer get_fill_order"
                ).split()
            ),
            methods={"MultiOutput.__init__": ("self", "layout", "input", "indices")},
            text=("self.indices", "self.mutable_args"),
            fragility="high",
        ),
        "GraphLowering": Touch(
            f"{_INDUCTOR}.graph:GraphLowering",
            "buffers, inputs and results of the graph; a mark on a node leaves it to aten",
            attributes=("get_current_device_or_throw", "try_get_buffer"),
            text=(
                '"inductor_realize_to_strides"',
                '"should_fallback" in n.meta',
                "def is_unspec_arg(self, name: str)",
                "self.additional_star_deps",
                "self.buffers",
                "self.current_node",
                "self.graph_input_names",
                "self.graph_inputs",
                "self.graph_outputs",
                "self.is_backward",
                "self.is_inference",
                "self.layout_opt",
                "self.nodes_prefer_channels_last",
                "self.operations",
                "self.removed_buffers",
                "self.scheduler",
                "self.sizevars",
                "self.user_visible_output_strides",
                "self.wrapper_code",
            ),
            fragility="high",
        ),
        "SizeVarAllocator": Touch(
            f"{_INDUCTOR}.sizevars:SizeVarAllocator",
            "sizes that are known, and hints of those that are not",
            methods={
                "optimization_hint": ("self", "expr"),
                "simplify": ("self", "expr"),
                "statically_known_leq": ("self", "left", "right"),
                "statically_known_multiple_of": ("self", "numerator", "denominator"),
            },
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
        "BaseDeviceInterface": Touch("torch._dynamo.device_interface:DeviceInterface", "the device type torchport"),
        "register_interface_for_device": Touch(
            "torch._dynamo.device_interface:register_interface_for_device", "the device type torchport"
        ),
        "DeviceOpOverrides": Touch(f"{_INDUCTOR}.codegen.common:DeviceOpOverrides", "lines of code for the device"),
        "register_backend_for_device": Touch(
            f"{_INDUCTOR}.codegen.common:register_backend_for_device", "code generation for the device type torchport"
        ),
        "register_device_op_overrides": Touch(
            f"{_INDUCTOR}.codegen.common:register_device_op_overrides", "lines of code for the device"
        ),
        "FakeTensorMode": Touch("torch._subclasses.fake_tensor:FakeTensorMode", "single operators are traced"),
        "LocalSource": Touch(
            "torch._dynamo.source:LocalSource",
            "arguments of single operators by name",
            ("local_name",),
            fragility="low",
        ),
        "FakeTensorProp": Touch(
            "torch.fx.passes.fake_tensor_prop:FakeTensorProp", "single operators' constants are moved to their device"
        ),
        "ShapeEnv": Touch(
            "torch.fx.experimental.symbolic_shapes:ShapeEnv",
            "single operators are traced with symbolic sizes and numbers",
            methods={
                "create_symbolic_sizes_strides_storage_offset": ("self", "ex", "source"),
                "produce_guards": ("self",),
            },
        ),
        "SYMPY_INTERP": Touch(
            "torch.fx.experimental.symbolic_shapes:SYMPY_INTERP", "guards of single operators are evaluated"
        ),
        "replace_random_passes": Touch(
            f"{_INDUCTOR}.fx_passes.replace_random:replace_random_passes",
            "single operators draw from seeds, as graphs do",
        ),
        "tracing": Touch("torch._guards:tracing", "single operators are compiled as graphs"),
        "BackendFeature": Touch(
            f"{_INDUCTOR}.codegen.common:BackendFeature",
            "sorting is left to aten",
            attributes=("SORT",),
            fragility="low",
        ),
        "CSEVariable": Touch(f"{_INDUCTOR}.codegen.common:CSEVariable", "dtypes of values inside a kernel"),
        "KernelArgs": Touch(
            f"{_INDUCTOR}.codegen.common:KernelArgs",
            "complex elements are moved as integers",
            methods={"python_argdefs": ("self",)},
        ),
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
        "SIMDKernelFeatures": Touch(
            f"{_INDUCTOR}.codegen.simd_kernel_features:SIMDKernelFeatures",
            "what a kernel computes, for its block sizes",
            attributes=(
                "get_reduction_hint",
                "is_reduction",
                "reduction_nodes",
                "scheduler_nodes",
                "select_index_dtype",
            ),
            methods={"contains_op": ("self", "op_name")},
            text=("self.reduction_numel",),
            fragility="high",
        ),
        "LoopBody": Touch(
            f"{_INDUCTOR}.loop_body:LoopBody",
            "along which dimension a node's accesses are contiguous",
            attributes=("vars",),
            text=("self.indexing_exprs",),
            fragility="high",
        ),
        "TritonSplitScanKernel": Touch(
            f"{_INDUCTOR}.codegen.triton_split_scan:TritonSplitScanKernel",
            "split scans keep Inductor's configuration; they are told by the word Split in their name",
        ),
        "TritonPrinter": Touch(
            f"{_INDUCTOR}.codegen.triton:TritonPrinter",
            "base class; what follows from sizes is computed in float64",
            methods={"_print_IntTrueDiv": ("self", "expr"), "_helper_sqrt": ("self", "expr")},
            text=(").to(tl.float32))",),
        ),
        "TritonKernel": Touch(
            f"{_INDUCTOR}.codegen.triton:TritonKernel",
            "base class; names of kernels are read from a comment in the source, grids from its metadata",
            attributes=("overrides", "kexpr"),
            methods={
                "codegen_kernel": ("self", "name"),
                "__init__": ("self", "tiling"),
                "_has_constant_mask": ("self", "tree"),
                "needs_yz_grid_overflow": ("self", "entry"),
            },
            text=(
                '"grid_type"',
                '"mutated_arg_names"',
                '"triton_helpers.set_driver_to_gpu()"',
                "@triton_heuristics.",
                "atomic_add_found",
                "self.fixed_config",
                "self.inductor_meta",
                "self.inside_reduction",
                "self.numels",
                "self.persistent_reduction",
                "self.triton_meta",
            ),
            fragility="high",
        ),
        "TritonKernelOverrides": Touch(
            f"{_INDUCTOR}.codegen.triton:TritonKernelOverrides",
            "base class; spellings that are wrong for some values",
            attributes=("neg", "signbit", "floordiv", "masked"),
        ),
        "TritonScheduling": Touch(
            f"{_INDUCTOR}.codegen.triton:TritonScheduling",
            "base class; kernels are keyed and loaded by torchport, tilings of equal nodes are matched once",
            attributes=("kernel_type", "backend_features"),
            methods={
                "_emit_kernel_to_wrapper": tuple(
                    (
                        "self wrapper kernel src_code kernel_name subs_name node_schedule kernel_path "
                        "get_kernel_metadata"
                    ).split()
                ),
                "define_kernel": ("self", "src_code", "node_schedule", "kernel"),
                "candidate_tilings": ("node", "numel", "reduction_numel"),
                "get_nd_tilings": ("node_schedule", "pointwise_numel", "reduction_numel"),
                "tiling_is_compatible": ("node_schedule", "numel", "reduction_numel", "tiling"),
            },
            fragility="high",
        ),
        "BlockPatternMatcher": Touch(
            f"{_INDUCTOR}.codegen.block_analysis:BlockPatternMatcher",
            "indices without quotients are not matched against blocks",
            methods={"match_mod_div_block_expr": ("index", "index_var", "numel", "num_dims")},
            text=("block_index_exprs = [FloorDiv(index_var", "ModularIndexing(index_var, numel, dim)"),
        ),
        "IndexPropagation": Touch(
            f"{_INDUCTOR}.index_propagation:IndexPropagation",
            "arithmetic on indices stays in the types that the program says",
            methods={"_default": ("self", "name", "args", "kwargs")},
            text=("self.fallback(name, args, kwargs)", "self.propagate_sympy(name, args, kwargs)"),
        ),
        "IndexPropVar": Touch(
            f"{_INDUCTOR}.index_propagation:IndexPropVar",
            "arithmetic on indices stays in the types that the program says",
            text=("is_symbolic", "value"),
        ),
        "InductorChoices": Touch(
            f"{_INDUCTOR}.choices:InductorChoices",
            "base class; block sizes, and how reductions are split",
            methods={
                "reduction_split_factor": ("device", "reduction_numel_hint", "numel_hint", "inner_reduction"),
                "should_use_persistent_reduction": ("features", "cooperative_reduction"),
                "triton_kernel_kwargs": ("self", "kernel_cls", "features", "groups", "kernel_kwargs"),
            },
            fragility="high",
        ),
        "ReductionHint": Touch(
            f"{_INDUCTOR}.runtime.hints:ReductionHint",
            "which dimension is contiguous",
            attributes=("INNER", "OUTER", "OUTER_TINY"),
            fragility="low",
        ),
        "next_power_of_2": Touch(f"{_INDUCTOR}.runtime.runtime_utils:next_power_of_2", "block sizes", fragility="low"),
        "MemoryDep": Touch(
            f"{_INDUCTOR}.dependencies:MemoryDep",
            "keys of tilings; what a pointwise value reads",
            text=("index:", "ranges", "def reads_and_writes"),
        ),
        "SchedulerNode": Touch(
            f"{_INDUCTOR}.scheduler:SchedulerNode",
            "what a kernel computes; keys of tilings",
            attributes=("get_nodes", "get_ranges"),
            text=("self._body", "self.current_node", "self.node", "self.read_writes"),
        ),
        # Templates
        "KernelTemplate": Touch(
            f"{_INDUCTOR}.codegen.common:KernelTemplate",
            "templates are parsed when they are first used",
            methods={"_template_from_string": ("source",)},
            text=("return env.from_string(source)",),
        ),
        "jinja2_env": Touch(f"{_INDUCTOR}.codegen.common:jinja2_env", "whether there are templates"),
        "FxGraphCachePickler": Touch(
            f"{_INDUCTOR}.codecache:FxGraphCachePickler",
            "cache keys are not told in parts where nobody reads them",
            methods={"debug_lines": ("self", "inp")},
        ),
        "trace_log": Touch(
            "torch._logging._internal:trace_log", "whether somebody reads the parts of cache keys", fragility="low"
        ),
        "DtypePropagationOpsHandler": Touch(
            f"{_INDUCTOR}.dtype_propagation:DtypePropagationOpsHandler",
            "its rules are filled in once",
            methods={"__init__": ("self",)},
            text=("op_dtype_propagation_rules.items()", "pointwise_overrides_data.values()", "cls._instance"),
        ),
        "dtype_rules": Touch(f"{_INDUCTOR}.utils:op_dtype_propagation_rules", "whether rules of types were added"),
        "pointwise_overrides_data": Touch(
            f"{_INDUCTOR}.codegen.common:pointwise_overrides_data", "whether rules of types were added"
        ),
        "fuse_attention": Touch(
            f"{_INDUCTOR}.fx_passes.fuse_attention",
            "patterns of attention are made for the first graph that they may match",
            attributes=("_sfdp_init", "_scaled_dot_product_attention", "_sfdp_params_check", "_sfdp_pattern_5"),
        ),
        "joint_graph": Touch(
            f"{_INDUCTOR}.fx_passes.joint_graph",
            "patterns of attention are made for the first graph that they may match; pairs of conversions stay",
            attributes=("canonicalize_aten_ir_passes", "patterns", "pointless_convert"),
            text=("from .fuse_attention import _sfdp_init", "lazy_init(input_device)", "canonicalize_aten_ir_passes("),
        ),
        "init_once_fakemode": Touch(
            f"{_INDUCTOR}.pattern_matcher:init_once_fakemode", "patterns are made as Inductor makes them"
        ),
        "TritonTemplate": Touch(
            f"{_INDUCTOR}.select_algorithm:TritonTemplate",
            "base class; kernels that are written as templates",
            attributes=("kernel_type",),
            methods={
                "__init__": ("self", "name", "grid", "source"),
                "generate": ("self", "input_nodes", "layout", "num_stages", "num_warps"),
                "generate_and_load": ("self", "input_nodes", "num_stages", "num_warps", "call_sizes"),
            },
            text=(
                "call_sizes: Sequence",
                "mutated_inputs: ",
                "subgraphs: ",
                "    input_call_args: tuple[str, ...]\n    prologue_supported_inputs: OrderedSet[str]\n",
                "    kernel_options: dict[str, Any]\n",
            ),
            fragility="high",
        ),
        "TritonTemplateKernel": Touch(
            f"{_INDUCTOR}.select_algorithm:TritonTemplateKernel",
            "base class; functions of the user's are inlined into kernels",
            methods={
                "_get_subgraph": ("self", "subgraph_number"),
                "_handle_scatter_graph": ("self", "scatter_graph"),
                "call_kernel": ("self", "name", "node", "deallocate_ws"),
                "create_subgraph_body": ("self", "body_name"),
                "def_kernel": ("self", "argnames"),
                "modification": ("self", "subgraph_number", "output_name", "mask"),
            },
            text=("self.call_sizes = call_sizes", "self.cse.invalidate(", "self.meta = meta", "self.subgraph_bodies:"),
            fragility="high",
        ),
        "ModificationWrapper": Touch(
            f"{_INDUCTOR}.select_algorithm:ModificationWrapper",
            "base class; what an inlined function reads and writes",
            parameters=("kernel", "subgraph_number", "fixed_inputs", "mask"),
            methods={
                "_add_kernel_input": ("self", "name"),
                "_process_indexing": ("self", "index"),
                "indirect_indexing": ("self", "index_var", "size", "check", "wrap_neg"),
                "load": ("self", "name", "index"),
                "store": ("self", "name", "index", "value", "mode"),
            },
            fragility="high",
        ),
        "SymbolicGridFn": Touch(
            f"{_INDUCTOR}.select_algorithm:SymbolicGridFn", "the grid of a template's kernels", fragility="low"
        ),
        "TritonSymbols": Touch(
            f"{_INDUCTOR}.codegen.triton:TritonSymbols",
            "the shape of an index in an inlined function",
            methods={"get_block_shape": ("expr",)},
        ),
        "sympy_index_symbol": Touch(f"{_INDUCTOR}.utils:sympy_index_symbol", "an index in an inlined function"),
        # FlexAttention
        "flex": Touch(
            f"{_INDUCTOR}.kernel.flex.common",
            "functions of the user's as Inductor's nodes, memory layouts of results",
            methods={
                "build_subgraph_module_buffer": ("args", "graph_module"),
                "create_placeholder": ("name", "dtype", "device"),
                "infer_dense_strides": ("size", "orig_strides"),
                "maybe_realize": ("args",),
            },
            text=("torch.ops.flex_lib.zeros_and_scatter.default",),
            fragility="high",
        ),
        "SubgraphLoweringException": Touch(
            f"{_INDUCTOR}.exc:SubgraphLoweringException", "functions that cannot be inlined", fragility="low"
        ),
        "IndentedBuffer": Touch(f"{_INDUCTOR}.utils:IndentedBuffer", "a kernel's source as text", fragility="low"),
        "OrderedSet": Touch("torch.utils._ordered_set:OrderedSet", "features of the code generation", fragility="low"),
        "PythonWrapperCodegen": Touch(
            f"{_INDUCTOR}.codegen.wrapper:PythonWrapperCodegen",
            "base class; the code around the kernels of a graph, which a recording reads",
            methods={
                "_generate_kernel_call_helper": ("self", "kernel_name", "call_args"),
                "define_user_defined_triton_kernel": ("self", "kernel", "configs", "kwargs"),
                "codegen_inputs": ("self",),
                "create": ("is_subgraph", "subgraph_name", "parent_wrapper", "partition_signatures"),
                "define_kernel": ("self", "kernel_name", "kernel_body", "metadata"),
                "generate": ("self", "is_inference"),
                "generate_after_suffix": ("self", "result"),
                "generate_kernel_call": ("self", "kernel_name", "call_args"),
                "generate_return": ("self", "output_refs"),
                "prepare_triton_kernel_call": ("self", "call_args"),
                "write_triton_header_once": ("self",),
            },
            text=(
                "empty_strided",
                "reinterpret_tensor({",
                "{self.comment} reuse",
                "{kernel_name}.run({",
                "self.header",
                "self.imports",
                "self.prefix",
            ),
            fragility="high",
        ),
        # Compiled graphs
        "CompiledFxGraph": Touch(
            f"{_INDUCTOR}.output_code:CompiledFxGraph",
            "calls of compiled graphs are observed while a recording is open",
            methods={"__call__": ("self", "inputs")},
            attributes=("post_compile",),
            text=(
                "compiled_fn_runner",
                "constants",
                "current_callable",
                "cudagraphify",
                "device_types",
                "partitions",
                "source_code",
            ),
        ),
        "CachingAutotuner": Touch(
            f"{_INDUCTOR}.runtime.triton_heuristics:CachingAutotuner",
            "launches of Inductor's own kernels are observed while a recording is open",
            attributes=("run",),
            text=(
                "benchmark_run=True",
                "self.configs",
                "self.device_props",
                "self.filename",
                "self.fn",
                "self.inductor_meta",
                "self.launchers",
                "self.triton_meta",
                '"extra_launcher_args"',
            ),
            fragility="high",
        ),
        "GridExpr": Touch(
            f"{_INDUCTOR}.runtime.triton_heuristics:GridExpr",
            "the grid of Inductor's own kernels; grids that torchport computes, by name",
            attributes=("from_meta", "eval_slow"),
            text=("class Grid1D(", "class Grid2D(", "class Grid2DWithYZOverflow(", "class Grid3D("),
            fragility="high",
        ),
    }
)
"""Names of Inductor by the name they have here."""

_find = resolver(__name__, TOUCHES)


def __getattr__(name: str) -> Any:
    return _find(name)
