"""Lowerings of torchport's in place of Inductor's, in compilations of torchport's only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torchport.errors import UnsupportedOperation
from torchport.inductor.compat import V, lowering_module, lowerings
from torchport.inductor.fallback import user_line
from torchport.inductor.scope import current
from torchport.inductor.shared import SharedChange

__all__ = ["lowered"]

Lowering = Callable[..., Any]

_change = SharedChange()


@contextmanager
def lowered(table: Mapping[Any, Lowering], after: Mapping[Any, Callable[[Any], None]]) -> Iterator[None]:
    """Lower operators as ``table`` says while the context is open. All contexts that overlap have the same tables.

    A lowering that returns NotImplemented leaves its call to Inductor's. ``after``: other operators, and what is called
    with the results of Inductor's lowerings.
    """

    def replace() -> Callable[[], None]:
        stock = {operator: _stock(operator) for operator in (*table, *after)}
        lowerings.update({operator: _lowering(ours, stock[operator]) for operator, ours in table.items()})
        lowerings.update({operator: _followed(stock[operator], follow) for operator, follow in after.items()})
        return lambda: lowerings.update(stock)

    with _change.made(replace):
        yield


def _stock(operator: Any) -> Lowering:
    """Inductor's. An operator of a package's gets the call of its kernel that Inductor would make of it when met."""
    if operator not in lowerings:
        tag = lowering_module.get_layout_constraint_tag(operator, with_default=True)
        constraint = lowering_module.tag_to_layout_constraint(tag)
        lowering_module.make_fallback(operator, layout_constraint=constraint, warn=False, override_decomp=True)
    found: Lowering = lowerings[operator]
    return found


def _lowering(ours: Lowering, stock: Lowering) -> Lowering:
    def lower(*args: Any, **kwargs: Any) -> Any:
        scope = current()
        if scope is None or scope.settings.stock:
            return stock(*args, **kwargs)
        try:
            result = ours(*args, **kwargs)
        except UnsupportedOperation as error:
            line = user_line([V.graph.current_node])
            raise UnsupportedOperation(error.operation, error.reason, location=line) from None
        return stock(*args, **kwargs) if result is NotImplemented else result

    return lower


def _followed(stock: Lowering, follow: Callable[[Any], None]) -> Lowering:
    def lower(*args: Any, **kwargs: Any) -> Any:
        result = stock(*args, **kwargs)
        scope = current()
        if scope is not None and not scope.settings.stock:
            follow(result)
        return result

    return lower
