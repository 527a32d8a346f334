"""Counts the work of devices with their own memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Statistics", "TransferCount"]


@dataclass
class TransferCount:
    """The number of copies in one direction for one reason, and their bytes."""

    copies: int = 0
    bytes: int = 0


@dataclass
class Statistics:
    """The counts of one device since its first use or ``reset``. Sizes are in bytes.

    uploads: copies to the device, by reason.
    downloads: copies from the device, by reason.
    launches: launches of kernels.
    host_operations: how often each operator ran on the host inside a graph.
    mirrored: memory of the mirrors of tensors.
    pooled: unused buffers kept for reuse.
    """

    uploads: dict[str, TransferCount] = field(default_factory=dict)
    downloads: dict[str, TransferCount] = field(default_factory=dict)
    launches: int = 0
    host_operations: Counter[str] = field(default_factory=Counter)
    mirrored: int = 0
    pooled: int = 0

    def count(self, direction: str, reason: str, nbytes: int) -> None:
        """Add one copy; ``direction`` is ``upload`` or ``download``."""
        into = self.uploads if direction == "upload" else self.downloads
        transfers = into.setdefault(reason, TransferCount())
        transfers.copies += 1
        transfers.bytes += nbytes

    @property
    def upload_copies(self) -> int:
        """Copies to the device, for all reasons."""
        return sum(count.copies for count in self.uploads.values())

    @property
    def upload_bytes(self) -> int:
        """Bytes copied to the device."""
        return sum(count.bytes for count in self.uploads.values())

    @property
    def download_copies(self) -> int:
        """Copies from the device, for all reasons."""
        return sum(count.copies for count in self.downloads.values())

    @property
    def download_bytes(self) -> int:
        """Bytes copied from the device."""
        return sum(count.bytes for count in self.downloads.values())
