"""Measures a target's passport: its arithmetic, as kernels show it that the target compiles and runs."""

from __future__ import annotations

from functools import partial
from typing import Any

from torchport.arithmetic.profile import Profile
from torchport.compile import BF16_PRODUCTS
from torchport.errors import OptionError, TorchportError
from torchport.plugin import backend_for
from torchport.precision.compiled_products import compiled_products
from torchport.precision.prober import Prober
from torchport.target import Target
from torchport.triton.active_target import use

__all__ = ["passport"]


def passport(target: str, profile: str | None = None, bf16_products: str = BF16_PRODUCTS[0]) -> dict[str, Any]:
    """The arithmetic of ``target``, as JSON can hold it; with ``profile``, of the CPU target emulating that profile.

    ``bf16_products``: the option in force (docs/options.md). Raises TargetError for a target that does not exist or run
    here, OptionError for a profile on another target and for an option that has no meaning.
    ``unmeasured`` has what the target does not compile, with the reason.
    """
    from triton.errors import TritonError

    parsed = Target.parse(target)
    arithmetic = ""
    if bf16_products not in BF16_PRODUCTS:
        raise OptionError(f"bf16_products is {bf16_products!r}; valid: {', '.join(map(repr, BF16_PRODUCTS))}")
    if profile is not None:
        if bf16_products != BF16_PRODUCTS[0]:
            raise OptionError("a profile and bf16_products both say how bf16 is multiplied; leave one out")
        if parsed.backend != "cpu":
            raise OptionError(f"profile {profile!r} on target {target}; chips are emulated on target cpu only")
        arithmetic = Profile.load(profile).arithmetic()
    found: dict[str, Any] = {"target": target, "profile": profile, "bf16_products": bf16_products}
    unmeasured: dict[str, str] = {}
    backend = backend_for(parsed)
    pairs = bf16_products == "pairs" and backend.capabilities(parsed).bf16_pairs
    options = {**({"arithmetic": arithmetic} if arithmetic else {}), **({"bf16_pairs": True} if pairs else {})}
    with use(parsed):
        measures = Prober(options).measurements()
        if not arithmetic and backend.driver(parsed).device == "cpu":
            measures["products.bf16"] = partial(compiled_products, str(parsed), bf16_products)
        for place, measure in measures.items():
            try:
                _put(found, place, measure())
            except (TorchportError, TritonError) as error:
                unmeasured[place] = str(error).strip().splitlines()[-1]
    found["unmeasured"] = unmeasured
    return found


def _put(into: dict[str, Any], place: str, value: Any) -> None:
    *outer, last = place.split(".")
    for name in outer:
        into = into.setdefault(name, {})
    into[last] = value
