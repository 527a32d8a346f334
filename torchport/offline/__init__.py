"""Compiles a model's kernels for targets without their hardware, and loads them where it is."""

from torchport.offline.capture import Capture, Library, capture
from torchport.offline.compilation import Artifact, compile_kernel
from torchport.offline.loading import Artifacts, Kernel, install, load
from torchport.offline.manifest import read, write
from torchport.offline.report import PortReport, port

__all__ = [
    "Artifact",
    "Artifacts",
    "Capture",
    "Kernel",
    "Library",
    "PortReport",
    "capture",
    "compile_kernel",
    "install",
    "load",
    "port",
    "read",
    "write",
]
