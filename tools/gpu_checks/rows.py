"""What steps share: arguments, and a file of rows that an interrupted step continues."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchport.files import write_whole

__all__ = ["Rows", "arguments"]


def arguments(description: str | None, given: Sequence[str] | None) -> argparse.Namespace:
    """``--target --device --profile --stand-in --quick --out`` of a step."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--target", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--profile", default="")
    parser.add_argument("--stand-in", action="store_true", help="the CPU computes as the profile's chip")
    parser.add_argument("--quick", action="store_true", help="small sizes, for tests of the tool")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(given)


class Rows:
    """Rows by key, on disk after each. path: of the JSON object; its ``rows`` are continued."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.content: dict[str, Any] = {"rows": {}}
        try:
            old = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            old = None
        if isinstance(old, dict) and isinstance(old.get("rows"), dict):
            self.content["rows"] = old["rows"]

    @property
    def rows(self) -> dict[str, Any]:
        """All rows."""
        found: dict[str, Any] = self.content["rows"]
        return found

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def put(self, key: str, row: Any) -> None:
        """Keep a row."""
        self.rows[key] = row
        self.write()

    def write(self, **more: Any) -> None:
        """Write all rows, and ``more`` beside them."""
        self.content.update(more)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, (json.dumps(self.content, indent=1) + "\n").encode())
