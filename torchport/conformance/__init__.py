"""Tests whether a target does what it promises: one suite for all targets, and certificates."""

from __future__ import annotations

from torchport.conformance.certificate import SCHEMA, certificate, grade, verify
from torchport.conformance.report import markdown
from torchport.conformance.runner import run
from torchport.conformance.suite import chosen, version

__all__ = ["SCHEMA", "certificate", "chosen", "grade", "markdown", "run", "verify", "version"]
