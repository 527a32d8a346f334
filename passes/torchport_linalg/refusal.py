"""An operation that has no form in linalg, and where it stands."""

from __future__ import annotations

from torchport.errors import UnsupportedOperation

__all__ = ["Located"]


class Located(Exception):
    """An operation was refused; ``place``: where it stands in the generic text."""

    def __init__(self, cause: UnsupportedOperation, place: str) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.place = place
