"""A model's kernels compiled for targets that need not be here: captured once, compiled for each."""

from torchport.offline.capture import capture
from torchport.offline.compilation import Artifact, compile_kernel
from torchport.offline.manifest import read, write

__all__ = ["Artifact", "capture", "compile_kernel", "read", "write"]
