"""Attention of CPU tensors in another chip's arithmetic, by the fused kernel ``torchport.kernels.attention``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from torchport.numerics.emulation.kernels import TYPES, EmulatedKernel

__all__ = ["EmulatedAttention"]

_BLOCKS = 32, 64
"""Queries and keys of a block, by how many there are; FlashAttention-2 takes 64 to 128, by head size, mask and chip."""
_SIZES = (
    *((name, "i32") for name in ("heads", "length", "keys")),
    *((f"mask_{axis}", "i64") for axis in ("batch", "head", "row", "column")),
    ("scale", "fp32"),
)
_Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class EmulatedAttention:
    """Attention in one arithmetic.

    arithmetic: the option of CPU kernels, JSON.
    precision: ``input_precision`` of products of f32.
    """

    arithmetic: str
    precision: str

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float = 0.0,
        is_causal: bool = False, *, attn_mask: torch.Tensor | None = None, scale: float | None = None,
    ) -> _Tensors | None:  # fmt: skip
        """The result [batch, heads, length, size] and the logarithms of the softmax's sums [batch, heads, length], f32.

        The arguments are those of ``aten._scaled_dot_product_flash_attention_for_cpu``. None for a case that is not
        emulated (dropout, types other than f16, bf16 and f32, no keys).
        """
        if not _takes((query, key, value), attn_mask, dropout_p):
            return None
        operands = [_padded(one) for one in (query, *_grouped(query, key, value))]
        out, sums = torch.empty_like(operands[0]), torch.empty(query.shape[:3], dtype=torch.float32)
        settings = _Settings.of(query, key, is_causal, attn_mask, scale)
        self._launch("attention", operands, settings, {"out": out, "sums": sums})
        return out[..., : query.shape[-1]], sums

    def backward(
        self, grad_out: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor,
        logsumexp: torch.Tensor, dropout_p: float, is_causal: bool, *, attn_mask: torch.Tensor | None = None,
        scale: float | None = None,
    ) -> _Tensors | None:  # fmt: skip
        """Gradients with respect to query, key and value; None as for ``forward``."""
        if not _takes((query, key, value, out, grad_out), attn_mask, dropout_p):
            return None
        operands = [_padded(one) for one in (query, *_grouped(query, key, value))]
        grads = [torch.empty_like(one) for one in operands]
        given = {"out": _padded(out), "sums": logsumexp.contiguous(), "grad_out": _padded(grad_out)}
        settings = _Settings.of(query, key, is_causal, attn_mask, scale)
        self._launch("attention_rows", operands, settings, {**given, "grad_query": grads[0]})
        others = {"grad_key": grads[1], "grad_value": grads[2]}
        self._launch("attention_columns", operands, settings, {**given, **others})
        found = [grad[..., : query.shape[-1]] for grad in grads]
        return found[0], _summed(found[1], key), _summed(found[2], value)

    def _launch(
        self, function: str, operands: list[torch.Tensor], settings: _Settings, others: dict[str, torch.Tensor]
    ) -> None:
        query, key, value = operands
        mask = settings.mask
        pointers = {"query": query, "key": key, "value": value, "mask": query if mask is None else mask, **others}
        constants = {
            "SIZE": query.shape[-1], "CAUSAL": settings.causal, "MASKED": mask is not None,
            "PRECISION": self.precision, "BLOCK_M": _block(query.shape[2]), "BLOCK_N": _block(key.shape[2]),
        }  # fmt: skip
        types = (*((name, f"*{TYPES[one.dtype]}") for name, one in pointers.items()), *_SIZES)
        kernel = EmulatedKernel("attention", function, self.arithmetic, types, tuple(constants.items()))
        batches, heads, length, _ = query.shape
        strides = (0, 0, 0, 0) if mask is None else mask.stride()
        count = (key if function == "attention_columns" else query).shape[2]
        blocks = -(-count // _block(count))
        if blocks * batches * heads:
            numbers = (heads, length, key.shape[2], *strides, settings.scale)
            kernel.launch((blocks, batches * heads, 1), *pointers.values(), *numbers)


@dataclass(frozen=True)
class _Settings:
    """Settings of one call. ``mask``: expanded to [batch, heads, length, keys]."""

    causal: bool
    mask: torch.Tensor | None
    scale: float

    @classmethod
    def of(
        cls, query: torch.Tensor, key: torch.Tensor, causal: bool, mask: torch.Tensor | None, scale: float | None
    ) -> _Settings:
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
        if mask is None and factor <= 0:  # without a mask, the largest product has to be the largest score
            mask = torch.zeros((), dtype=query.dtype)
        return cls(causal, None if mask is None else mask.expand(*query.shape[:3], key.shape[2]), factor)


def _block(count: int) -> int:
    return next((size for size in _BLOCKS if size >= count), _BLOCKS[-1])


def _takes(tensors: _Tensors, mask: torch.Tensor | None, dropout_p: float) -> bool:
    query, key, value = tensors[:3]
    return (
        dropout_p == 0.0
        and query.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and all(one.dtype == query.dtype and one.shape[-1] == query.shape[-1] for one in tensors)
        and key.shape == value.shape
        and key.shape[1] > 0
        and query.shape[1] % key.shape[1] == 0
        and (mask is None or mask.dtype in (query.dtype, torch.float32))
    )


def _padded(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, with zeros up to a size that is a power of two and that ``tl.dot`` takes: they change no sum."""
    size = tensor.shape[-1]
    wanted = max(16, 1 << (size - 1).bit_length())
    return torch.nn.functional.pad(tensor, (0, wanted - size)).contiguous()


def _grouped(query: torch.Tensor, *others: torch.Tensor) -> _Tensors:
    """``others`` with as many heads as ``query``, of which several may share one."""
    return tuple(one.repeat_interleave(query.shape[1] // one.shape[1], 1) for one in others)


def _summed(grad: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """``grad`` summed over heads that share one of ``shared``: after rounding, as in FlashAttention-2."""
    batches, heads, length, size = shared.shape
    return grad if grad.shape == shared.shape else grad.reshape(batches, heads, -1, length, size).sum(2)
