"""Whether results of a compiled program are right, with eager and float64 as references."""

from __future__ import annotations

import torch

FACTOR = 10.0
"""How much larger than eager's the error against float64 may be."""


def wrong(got: object, eager: object, wide: object, exact: bool, narrowest: torch.dtype | None = None) -> str | None:
    """What is wrong with a result, or None.

    wide: the float64 result, if there is one.
    narrowest: of the types that the result may come of, whose roundings it has then.
    """
    if not isinstance(eager, torch.Tensor) or not isinstance(got, torch.Tensor):
        return None if type(got) is type(eager) and (got == eager or got != got) else f"{got!r} instead of {eager!r}"
    if got.dtype != eager.dtype or got.shape != eager.shape:
        return f"{got.dtype} {list(got.shape)} instead of {eager.dtype} {list(eager.shape)}"
    if got.layout != eager.layout:
        return f"{got.layout} instead of {eager.layout}"
    g, e = (_plain(t) for t in (got, eager))
    if not g.numel():
        return None
    same = (g == e) | (g.isnan() & e.isnan())
    if not exact and g.is_floating_point():
        w = _plain(wide) if isinstance(wide, torch.Tensor) and wide.shape == eager.shape else None
        same |= _close(g, e, w, eager.dtype, narrowest)
    if bool(same.all()):
        return None
    first = tuple((~same).nonzero()[0].tolist())
    more = f" (float64: {_plain(wide)[first].item()!r})" if isinstance(wide, torch.Tensor) and not exact else ""
    count = int((~same).sum())
    return f"{count} of {same.numel()} wrong; at {first}: {g[first].item()!r} instead of {e[first].item()!r}{more}"


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Dense, real, and in float64 if it is a float; detached."""
    tensor = tensor.detach()
    tensor = (tensor if tensor.layout == torch.strided else tensor.to_dense()).resolve_conj().resolve_neg()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.double() if tensor.is_floating_point() else tensor


def _close(
    g: torch.Tensor, e: torch.Tensor, w: torch.Tensor | None, dtype: torch.dtype, narrowest: torch.dtype | None
) -> torch.Tensor:
    """Elements that are as near to float64 as eager's, times FACTOR, plus a few roundings; overflow may come later."""
    types = [torch.float32 if dtype.is_complex else dtype]
    if w is None:
        types.append(narrowest or torch.float32)
    elif narrowest is not None:  # eager's own error has the roundings of 16 bits
        types.append(torch.float32)
    info = max(map(torch.finfo, types), key=lambda info: info.eps)
    centre = e if w is None else torch.where(w.isfinite(), w, e)
    size = torch.where(centre.isfinite(), centre.abs(), 0.0)
    both = centre.isfinite() & e.isfinite()
    error = torch.where(both, (e - centre).abs(), 0.0)
    roundings = 32 * info.eps * size + 4 * info.eps * torch.where(both, size, 0.0).max() + 16 * info.tiny
    bound = FACTOR * (error + error.max() * 0.5) + roundings
    close = (g - centre).abs() <= bound
    if w is not None and w.shape == g.shape:  # overflow of a narrow type, in eager or here, or not
        near = ~(w.abs() < info.max / 4)
        close |= near & ~(g.isfinite() & e.isfinite())
        close |= w.isnan() & e.isnan() & g.isnan()
    return close
