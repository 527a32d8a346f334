"""The CPU as one of torchport's backends."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torchport.errors import TargetError
from torchport.plugin import API_VERSION
from torchport.target import Target

__all__ = ["CPUPlugin", "backend"]


class CPUPlugin:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "cpu"
    api_version = API_VERSION
    device = "cpu"
    inductor_options: Mapping[str, Any] = MappingProxyType({"cpu_backend": "triton"})

    def fingerprint(self, target: Target) -> str:
        """Hash of all that the machine code depends on.

        Raises TargetError where ``target`` names another CPU than this machine's.
        """
        from torchport_cpu.fingerprint import fingerprint
        from torchport_cpu.host import host_info

        machine, vectors = host_info().arch.split("-")
        if target.parts not in ((), (machine,), (machine, vectors)):
            raise TargetError(
                f"target {target} does not fit this machine; valid here: cpu, cpu:{machine}, cpu:{machine}:{vectors}"
            )
        return fingerprint()


backend = CPUPlugin()
