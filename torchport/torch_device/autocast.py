"""Autocast on the device: which operators compute in the lower precision, and which in float32.

The lists are those of PyTorch's documentation for CUDA ("Autocast Op Reference", torch.amp), as far as the operators
are more than compositions of others in the lists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchport.compat import DispatchKey, DispatchKeySet, ExcludeDispatchKeyGuard
from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.torch_device.arguments import operator_named
from torchport.torch_device.dispatch import untraced

__all__ = ["libraries"]

_KEY = "AutocastPrivateUse1"
_LOWER = """
    matmul mm bmm addmm addbmm baddbmm addmv addr mv linear bilinear chain_matmul linalg_vecdot linalg_multi_dot prelu
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d.input conv_transpose3d.input conv_tbc convolution
    scaled_dot_product_attention
""".split()
_FLOAT32 = """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar pow.Tensor_Tensor
    pow.Scalar softplus layer_norm native_layer_norm group_norm frobenius_norm.dim nuclear_norm cosine_similarity
    poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss
    huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss
    multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp softmax.int log_softmax.int
    cumprod cumsum prod prod.dim_int sum sum.dim_IntList norm.Scalar norm.ScalarOpt_dim
""".split()


def libraries() -> list[Any]:
    """Register both lists; all other operators take their arguments as they are."""
    rest = torch.library.Library("_", "IMPL")
    rest.fallback(torch.library.fallthrough_kernel, _KEY)
    library = torch.library.Library("aten", "IMPL")
    for names, wanted in ((_LOWER, _lower), (_FLOAT32, lambda: torch.float32)):
        for name in names:
            library.impl(name, _casting(operator_named(name), wanted), _KEY)
    return [rest, library]


def _lower() -> torch.dtype:
    return torch.get_autocast_dtype(DEVICE_TYPE)


def _casting(operator: Any, wanted: Callable[[], torch.dtype]) -> Any:
    without = DispatchKeySet(getattr(DispatchKey, _KEY))

    def run(*args: Any, **kwargs: Any) -> Any:
        dtype = wanted()
        with ExcludeDispatchKeyGuard(without):
            return operator(
                *[_cast(value, dtype) for value in args],
                **{name: _cast(value, dtype) for name, value in kwargs.items()},
            )

    return untraced(run)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        floats = value.is_floating_point() and value.device.type == DEVICE_TYPE and value.dtype != torch.float64
        return value.to(dtype) if floats else value
    return [_cast(item, dtype) for item in value] if isinstance(value, (list, tuple)) else value
