"""Registers the device type ``torchport`` with PyTorch. Done once, and only when somebody asks for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch

from torchport.compat import get_kernel, registrations, setup_python_backend
from torchport.errors import TargetError
from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.torch_device import (
    answers,
    attention,
    autocast,
    convolution,
    copies,
    current,
    module,
    native,
    products,
    random,
    recurrent,
    storage,
)
from torchport.torch_device.arguments import operator_named
from torchport.torch_device.dispatch import call, compute, untraced
from torchport.torch_device.plans import operation_of
from torchport.torch_device.targets import targets

__all__ = ["install"]

_KEY = "PrivateUse1"
_FIRST = 1
"""Before torch's own way of loading, which needs an allocator in C++."""
_SHARED = (
    "view", "as_strided", "_reshape_alias", "view.dtype", "unfold", "set_.source_Tensor", "set_.source_Storage",
    "set_.source_Storage_storage_offset", "set_", "alias", "view_as_real", "view_as_complex",
)  # fmt: skip
"""Operators that compute with sizes and addresses only: torch's own for CPU tensors."""

_COMPOSED = (
    "native_layer_norm", "native_group_norm", "embedding", "masked_fill.Scalar",
    "masked_fill.Tensor", "repeat", "roll", "rot90", "mean", "sum", "stack", "logsumexp", "nan_to_num", "addr",
    "_safe_softmax", "soft_margin_loss", "soft_margin_loss_backward",
    "binary_cross_entropy_with_logits", "huber_loss_backward", "smooth_l1_loss_backward", "celu", "celu_",
    "count_nonzero", "index_put", "index_put_", "_unsafe_index.Tensor", "_unsafe_index_put", "masked_scatter",
    "polar", "complex", "deg2rad", "rad2deg", "index_fill.int_Scalar", "index_fill.int_Tensor", "logcumsumexp",
    "abs", "abs_", "logical_and", "logical_or", "logical_xor", "logical_not", "copysign.Scalar", "isinf", "mvlgamma",
    "_index_put_impl_", "median.dim", "nanmedian.dim", "cummax", "cummin", "kthvalue", "sort",
    "mv", "add.Scalar", "sub.Scalar", "mul.Scalar", "div.Scalar", "rsub.Scalar", "rrelu_with_noise_backward",
)  # fmt: skip
"""Operators that torch makes of several others, views and copies among them, without a derivative in between."""

_PLACED = ("select_backward",)
"""With ``slice_backward`` and ``diagonal_backward``: a view of zeros, and a copy into it.

Code for all of it would be code for each length and place."""

_PRODUCTS = ("mm", "mm.out", "bmm", "bmm.out", "addmm", "addmm.out", "baddbmm", "baddbmm.out")

_lock = threading.Lock()
_libraries: list[Any] = []
_refusals: list[TargetError] = []


def install() -> None:
    """Make ``torch.device("torchport")`` known to PyTorch. Raises TargetError if it is too late for that."""
    with _lock:
        if _refusals:
            raise _refusals[0]
        if _libraries:
            return
        part = native.load()
        if part is None:
            storage.allow_new_storages()
        else:
            part.install(answers, len(targets()), random.generator)
            current.keeper = part
        setup_python_backend(rename=DEVICE_TYPE, backend_module=module)
        # Else `Module.to` would make each parameter anew: tied weights would part, and optimizers keep the old ones.
        torch.__future__.set_swap_module_params_on_conversion(True)
        torch.serialization.register_package(_FIRST, lambda storage: None, storage.restore)
        _libraries.append(_fallback())
        _libraries.append(_operators())
        _libraries.append(_copies_of_views())
        _libraries.extend(autocast.libraries())
        if targets():
            _check_autograd()


def _check_autograd() -> None:
    """Run a gradient on the device. Raises TargetError if autograd has started already: it counts devices only then."""
    leaf = storage.empty((1,), dtype=torch.float32).requires_grad_()
    try:
        leaf.view(1).backward(torch.empty(1, device=DEVICE_TYPE))
    except RuntimeError as error:
        refusal = TargetError(
            "PyTorch has computed gradients already, and autograd learns of devices only before the first: call "
            "torchport.device() earlier, or set TORCHPORT_DEVICE=1"
        )
        _refusals.append(refusal)
        raise refusal from error


def _fallback() -> Any:
    library = torch.library.Library("_", "IMPL")
    library.fallback(untraced(lambda operator, *args, **kwargs: call(operator, args, kwargs)), _KEY)
    return library


def _structured() -> Iterator[str]:
    """Operators that torch would make of an allocation and their ``out`` form: one call is better than three."""
    for name in registrations("CompositeExplicitAutogradNonFunctional"):
        short = name.removeprefix("aten::")
        if short == name or name.endswith("out") or short in (*_PRODUCTS, *_PLACED, "new_empty_strided"):
            continue
        if torch.Tag.inplace_view not in operator_named(name).tags:
            yield name


def _written(name: str) -> Any:
    operator = operator_named(name)
    return lambda *args, **kwargs: products.compute(operator, args, kwargs)


def _generated(name: str) -> Any:
    operation = operation_of(operator_named(name))
    return lambda *args, **kwargs: compute(operation, args, kwargs)


def _shared(kernel: Any) -> Any:
    return lambda keys, *args, **kwargs: kernel.call_boxed(keys, *args, **kwargs)


def _blocking(kernel: Any) -> Any:
    """``to``, for which ``non_blocking`` means nothing: torch would ask for pinned memory, and a copy waits anyway."""

    def to_copy(keys: Any, *args: Any, non_blocking: bool = False, **kwargs: Any) -> Any:
        return kernel.call_boxed(keys, *args, **kwargs)

    return to_copy


def _operators() -> Any:
    library = torch.library.Library("aten", "IMPL")
    for name in _SHARED:
        library.impl(name, _shared(get_kernel(f"aten::{name}", "CPU")), _KEY, with_keyset=True)
    library.impl("_to_copy", _blocking(get_kernel("aten::_to_copy", "CPU")), _KEY, with_keyset=True)
    for name, function in _functions():
        library.impl(name, untraced(function), _KEY)
    library.impl("_pin_memory", copies.pin, "CPU")
    for key in (_KEY, f"Autograd{_KEY}"):
        library.impl("scaled_dot_product_attention", untraced(attention.attention), key)
    return library


def _copies_of_views() -> Any:
    """Let copies see which elements stand for their conjugates or negatives: torch would make these by a copy."""
    library = torch.library.Library("aten", "IMPL")
    for key in ("Conjugate", "Negative"):
        library.impl("_copy_from", torch.library.fallthrough_kernel, key)
    return library


def _functions() -> Iterator[tuple[str, Any]]:
    """What computes operators on the device, by name."""
    for name in _structured():
        yield name.removeprefix("aten::"), _generated(name)
    for name in _COMPOSED:
        yield name, _generated(name)
    for name in _PRODUCTS:
        yield name, _written(name)
    yield "empty.memory_format", storage.empty
    yield "empty_strided", storage.empty_strided
    yield "arange.start_out", storage.arange
    yield "eye.out", storage.eye
    yield "eye.m_out", storage.eye
    yield "randint.low_out", random.draw
    yield "randperm.generator_out", random.permutation
    for name in ("random_", "random_.from", "random_.to"):
        yield name, random.integers_
    yield "_thnn_fused_lstm_cell", recurrent.lstm_cell
    yield "_thnn_fused_lstm_cell_backward_impl", recurrent.lstm_cell_backward
    yield "_thnn_fused_gru_cell", recurrent.gru_cell
    yield "_thnn_fused_gru_cell_backward", recurrent.gru_cell_backward
    yield "new_empty_strided", storage.new_empty_strided
    yield "convolution", convolution.convolution
    yield "convolution_backward", convolution.convolution_backward
    yield "resize_", storage.resize_
    yield "_copy_from", copies.copy_from
    yield "_local_scalar_dense", copies.scalar
