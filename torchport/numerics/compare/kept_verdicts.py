"""Verdicts that were given before, by the content of the recorded call: judging a run again takes no time."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from torchport.files import write_whole
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.verdict import KernelVerdict
from torchport.schema import Mismatch, conform

__all__ = ["KeptVerdicts"]

_MOST = 256
"""Calls whose verdicts are kept; those that were not written for the longest time go first."""


@dataclass(frozen=True)
class KeptVerdicts:
    """A folder of verdicts, one file for each call of a graph. Files that cannot be read or written are left out.

    folder: may be missing
    judged_by: what verdicts depend on besides the call: the compiler, the chip's profile, what is trusted
    """

    folder: Path
    judged_by: str

    def read(self, call: RecordedCall) -> dict[int, KernelVerdict]:
        """The verdicts on the launches of ``call``, by number, without their references."""
        try:
            content = json.loads(self._file(call).read_bytes())
            verdicts = conform(content, list[KernelVerdict], "verdicts")
        except (OSError, ValueError, Mismatch, RecursionError):
            return {}
        return {verdict.seq: verdict for verdict in verdicts}

    def write(self, call: RecordedCall, verdicts: Mapping[int, KernelVerdict]) -> None:
        """Keep verdicts on the launches of ``call``; what was not verified is tried again the next time."""
        kept = [_plain(verdict) for verdict in verdicts.values() if verdict.level != "UNVERIFIED"]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._file(call), json.dumps(kept).encode())
            files = sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
            for file in files[:-_MOST]:
                file.unlink(missing_ok=True)
        except OSError:
            return  # a full disk, or a folder that is not ours, costs time only

    def _file(self, call: RecordedCall) -> Path:
        kernels = {launch.kernel: call.run.kernels.get(launch.kernel) for launch in call.launches if launch.kernel}
        parts = [
            self.judged_by, torch.__version__, torch.backends.cpu.get_cpu_capability(), _sources(),
            json.dumps(call.dump, sort_keys=True), json.dumps(kernels, sort_keys=True), *map(repr, call.lines),
        ]  # fmt: skip
        return self.folder / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}.json"


def _plain(verdict: KernelVerdict) -> dict[str, Any]:
    plain = asdict(verdict)
    for tensor in plain["tensors"]:
        del tensor["reference"]
    return plain


@functools.cache
def _sources() -> str:
    """Hash of the sources that judge: torchport's numerics and arithmetic."""
    digest, root = hashlib.sha256(), Path(__file__).parents[2]
    for file in sorted(path for name in ("numerics", "arithmetic") for path in (root / name).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
