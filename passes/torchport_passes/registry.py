"""Every pass by name: those of this package found by file, others through the entry point group `torchport.passes`.

Nothing is imported until a pass is asked for.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from torchport.errors import OptionError
from torchport.pipeline import Pass

__all__ = ["load", "names"]

_GROUP = "torchport.passes"

_PASS = re.compile(r'^class (\w+):\n(?:(?!^class )[\s\S])*?^    name: ClassVar\[str\] = "([\w-]+)"', re.MULTILINE)


@cache
def _own() -> dict[str, str]:
    """Name -> ``module:class`` of torchport's passes: the classes of this package that have a name, one a file.

    The files are read and not imported. Raises OptionError where a pass is not in the file of its name.
    """
    root = Path(__file__).parent
    found: dict[str, str] = {}
    for file in sorted(root.rglob("*.py")):
        for kind, name in _PASS.findall(file.read_text(encoding="utf-8")):
            module = ".".join((root.name, *file.relative_to(root).with_suffix("").parts))
            if file.stem != name.replace("-", "_"):
                raise OptionError(f"pass {name!r} is in {file}; one pass is one file of its name")
            found[name] = f"{module}:{kind}"
    return found


def _table() -> dict[str, str]:
    """Name -> ``module:class`` of every pass; raises OptionError when two packages claim one name."""
    table = dict(_own())
    owners = dict.fromkeys(table, "torchport")
    for point in entry_points(group=_GROUP):
        owner = point.dist.name if point.dist is not None else point.value
        if point.name in table:
            raise OptionError(
                f"pass {point.name!r} is offered by both {owners[point.name]} and {owner}; uninstall one of them"
            )
        table[point.name] = point.value
        owners[point.name] = owner
    return table


def names() -> list[str]:
    """The names of all passes, sorted."""
    return sorted(_table())


def load(name: str) -> type[Pass]:
    """The class of pass ``name``.

    Raises OptionError (listing the names there are) when there is none, or when the class's own name differs.
    """
    table = _table()
    if name not in table:
        raise OptionError(f"unknown pass {name!r}; the passes are: {', '.join(sorted(table))}")
    module, _, attribute = table[name].partition(":")
    found: type[Pass] = getattr(importlib.import_module(module), attribute)
    if found.name != name:
        raise OptionError(f"pass {name!r} ({table[name]}) calls itself {found.name!r}; one pass has one name")
    return found
