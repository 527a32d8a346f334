"""One operator library in Triton for every target: eager on tensors, and inside torch.compile.

Each function is imported when it is first used: ``torchport.ops.rms_norm(x, weight)``. docs/operators.md lists them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchport.ops.attention.flash import flash_attention
    from torchport.ops.attention.paged import paged_attention
    from torchport.ops.attention.piecewise import piecewise_attention
    from torchport.ops.attention.totals import attention_totals
    from torchport.ops.attention.transformers import register_attention
    from torchport.ops.patching import patch
    from torchport.ops.written.adamw import adamw_step
    from torchport.ops.written.cross_entropy import cross_entropy
    from torchport.ops.written.embedding import embedding
    from torchport.ops.written.fused_linear_cross_entropy import fused_linear_cross_entropy
    from torchport.ops.written.gated import geglu, swiglu
    from torchport.ops.written.grouped_mm import grouped_mm
    from torchport.ops.written.int4_linear import int4_linear, int4_pack
    from torchport.ops.written.int8_linear import int8_linear
    from torchport.ops.written.layer_norm import add_layer_norm, layer_norm
    from torchport.ops.written.quantize import dequantize, quantize
    from torchport.ops.written.quantized_linear import quantized_linear
    from torchport.ops.written.reshape_and_cache import reshape_and_cache
    from torchport.ops.written.rms_norm import add_rms_norm, rms_norm
    from torchport.ops.written.rope import rope
    from torchport.ops.written.router_topk import router_topk
    from torchport.ops.written.sample import sample
    from torchport.ops.written.softmax import log_softmax, softmax

__all__ = [
    "adamw_step",
    "add_layer_norm",
    "add_rms_norm",
    "attention_totals",
    "cross_entropy",
    "dequantize",
    "embedding",
    "flash_attention",
    "fused_linear_cross_entropy",
    "geglu",
    "grouped_mm",
    "int4_linear",
    "int4_pack",
    "int8_linear",
    "layer_norm",
    "log_softmax",
    "paged_attention",
    "patch",
    "piecewise_attention",
    "quantize",
    "quantized_linear",
    "register_attention",
    "reshape_and_cache",
    "rms_norm",
    "rope",
    "router_topk",
    "sample",
    "softmax",
    "swiglu",
]

_MODULES = {
    "attention_totals": "attention.totals",
    "flash_attention": "attention.flash",
    "paged_attention": "attention.paged",
    "piecewise_attention": "attention.piecewise",
    "register_attention": "attention.transformers",
    "adamw_step": "written.adamw",
    "add_layer_norm": "written.layer_norm",
    "add_rms_norm": "written.rms_norm",
    "cross_entropy": "written.cross_entropy",
    "dequantize": "written.quantize",
    "embedding": "written.embedding",
    "fused_linear_cross_entropy": "written.fused_linear_cross_entropy",
    "geglu": "written.gated",
    "grouped_mm": "written.grouped_mm",
    "int4_linear": "written.int4_linear",
    "int4_pack": "written.int4_linear",
    "int8_linear": "written.int8_linear",
    "layer_norm": "written.layer_norm",
    "log_softmax": "written.softmax",
    "quantize": "written.quantize",
    "quantized_linear": "written.quantized_linear",
    "reshape_and_cache": "written.reshape_and_cache",
    "rms_norm": "written.rms_norm",
    "rope": "written.rope",
    "router_topk": "written.router_topk",
    "sample": "written.sample",
    "softmax": "written.softmax",
    "swiglu": "written.gated",
}


def __getattr__(name: str) -> Any:
    if name != "patch" and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "patching" if name == "patch" else _MODULES[name]
    function = getattr(importlib.import_module(f"torchport.ops.{module}"), name)
    globals()[name] = function
    return function
