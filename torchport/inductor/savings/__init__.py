"""Work of Inductor's and Dynamo's that no result depends on: done once, when it is needed, or not at all.

One module a kind. Like everything that torchport changes in them, it is in force for graphs of torchport's only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["saving"]


@contextmanager
def saving() -> Iterator[None]:
    """Save what this package can while Inductor compiles a graph in this thread."""
    from torchport.inductor.savings import hashes, patterns, rules, support
    from torchport.inductor.savings.state import in_force

    for kind in (hashes, patterns, rules, support):
        kind.install()
    with in_force():
        yield
