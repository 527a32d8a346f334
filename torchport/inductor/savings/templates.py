"""Inductor's templates of kernels: it parses two dozen when it is imported, of which a model uses none or one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torchport.inductor.compat import KernelTemplate, jinja2_env
from torchport.inductor.savings.state import in_force, saves

__all__ = ["parsed_later"]


class _Template:
    """A template that is parsed when something is first asked of it."""

    def __init__(self, parse: Callable[[], Any]) -> None:
        self._parse = parse

    @functools.cached_property
    def _parsed(self) -> Any:
        return self._parse()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parsed, name)


@contextmanager
def parsed_later() -> Iterator[None]:
    """Templates that are made while the context is open, in this thread, are parsed when they are first used."""
    _install()
    with in_force():
        yield


@functools.cache
def _install() -> None:
    stock: Callable[[str], Any] = KernelTemplate._template_from_string

    @functools.wraps(stock)
    def template(source: str) -> Any:
        if not saves() or jinja2_env() is None:  # without jinja there are no templates
            return stock(source)
        return _Template(functools.partial(stock, source))

    KernelTemplate._template_from_string = staticmethod(template)
