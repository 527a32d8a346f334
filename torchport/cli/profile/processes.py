"""Runs first calls in processes of their own, over private caches."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from torchport.cli.profile.measured import Failure, Measured, Profile
from torchport.config import config
from torchport.errors import OptionError, TorchportError
from torchport.files import read_json

__all__ = ["BACKENDS", "profiles"]

BACKENDS = {"torchport": "torchport", "inductor": "inductor", "eager-floor": "aot_eager"}
"""torch.compile's name of each. The floor traces a graph with Dynamo and AOTAutograd, and runs it eagerly."""

_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR")


def profiles(
    model: str, backends: Sequence[str], *, warm: bool, progress: Callable[[str], None] = lambda text: None
) -> list[Profile]:
    """The first call of ``model`` with each backend, cold, or ``warm``: in a second process over the first's caches.

    progress: told what runs.

    Raises OptionError for a model that cannot be loaded or compiles nothing, TorchportError for one that raises.
    """
    found = []
    for backend in backends:
        with tempfile.TemporaryDirectory(prefix="torchport-profile-", ignore_cleanup_errors=True) as folder:
            for start in ("cold", "warm") if warm else ("cold",):
                progress(f"{backend}, {start}")
                measured = _measured(model, backend, start, Path(folder))
        found.append(Profile.of(backend, start, measured))
    return found


def _measured(model: str, backend: str, start: str, folder: Path) -> Measured:
    result = folder / "result.json"
    settings = config()
    environment = {**os.environ, **{name: str(folder / name.lower()) for name in _CACHES}, "TORCHPORT_DEBUG": "0"}
    if settings.quarantine is not None:  # by default in the folder of the cache
        environment["TORCHPORT_QUARANTINE"] = str(settings.quarantine)
    # What the model prints goes to standard error: standard output may be JSON.
    command = [sys.executable, "-m", "torchport.cli.profile.worker", model, BACKENDS[backend], str(result)]
    status = subprocess.run(command, env=environment, stdout=2, check=False).returncode
    if status:
        raise TorchportError(
            f"{model} could not be profiled: its process ({backend}, {start}) ended with status {status}; what it "
            "printed is above"
        )
    report = read_json(result, Measured | Failure)  # type: ignore[arg-type]
    if isinstance(report, Failure):
        raise OptionError(report.error)
    return report
