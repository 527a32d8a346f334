"""Running a job in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).parent.parent


class JobError(Exception):
    """A job's process failed or took too long; the text says how."""


def run_job(module: str, job: dict[str, Any], variables: Mapping[str, str], limit_s: float) -> Any:
    """Run `python -m module JOB` with `variables` added to the environment; its last line of output, read as JSON.

    Raises JobError, with the last line that the process wrote to standard error, where it fails or takes longer than
    `limit_s` seconds.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(TOOLS), *filter(None, [environment.get("PYTHONPATH")])])
    environment |= variables
    command = [sys.executable, "-m", module, json.dumps(job)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s, check=True)
    except subprocess.TimeoutExpired as error:
        raise JobError(f"took more than {limit_s} s") from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        raise JobError(f"failed: {lines[-1][:300] if lines else f'status {error.returncode}'}") from error
    return json.loads(done.stdout.splitlines()[-1])
