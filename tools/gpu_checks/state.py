"""The one file that all results are in, replaced as a whole after each step."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["DONE", "SCHEMA", "State"]

SCHEMA = "torchport.gpu_check/1"
DONE = ("passed", "failed", "skipped")
"""Statuses of steps that a resumed run does not run again; the others are ``timeout`` and ``not run``."""


class State:
    """Results by step. path: of the file."""

    def __init__(self, path: Path, environment: Mapping[str, Any], steps: Sequence[str]) -> None:
        self.path = path
        self.content: dict[str, Any] = {
            "schema": SCHEMA,
            "environment": dict(environment),
            "complete": False,
            "steps": {step: {"status": "not run"} for step in steps},
        }

    @property
    def steps(self) -> dict[str, Any]:
        """What each step gave: ``status``, ``seconds``, ``result`` and so on."""
        found: dict[str, Any] = self.content["steps"]
        return found

    @property
    def work(self) -> Path:
        """A folder for files of steps, which a later run continues."""
        return self.path.with_name(self.path.name + ".work")

    def resume(self, *, failed: bool = True, fresh: bool = False) -> str:
        """Take over what the file has of the same machine and sources. Returns why nothing is taken over, if so.

        ``failed``: take over steps that failed, too. ``fresh``: take over nothing. What steps left in ``work`` is
        removed where it is not of these sources.
        """
        why, old = ("", {}) if fresh else self._old()
        if not old:
            shutil.rmtree(self.work, ignore_errors=True)
            return why
        for name, result in old.items():
            status = result.get("status")
            if name not in self.steps or status not in DONE:
                continue
            if status == "failed" and not failed:
                (self.work / f"{name}.json").unlink(missing_ok=True)
            else:
                self.steps[name] = result
        return ""

    def _old(self) -> tuple[str, dict[str, Any]]:
        """The steps of an earlier run that can be continued, or why there are none."""
        try:
            old = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return "", {}
        except ValueError:
            return f"{self.path} is no JSON: it is written anew", {}
        if not isinstance(old, dict) or old.get("schema") != SCHEMA or not isinstance(old.get("steps"), dict):
            return f"{self.path} is no result of this tool: it is written anew", {}
        known = old.get("environment", {})
        changed = [name for name, value in self.content["environment"].items() if known.get(name) != value]
        if changed:
            return f"{self.path} is of another {', '.join(changed)}: all steps run anew", {}
        return "", old["steps"]

    def put(self, step: str, result: Mapping[str, Any]) -> None:
        """Keep a step's result, on disk at once."""
        self.steps[step] = dict(result)
        self.write()

    def write(self) -> None:
        """Replace the file: a reader sees the old one or the new one."""
        self.content["complete"] = all(one["status"] in DONE for one in self.steps.values())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(self.content, indent=1) + "\n")
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
