"""Checks of a kernel launch: elements left unwritten, a second launch with other results, unexpected NaN or Inf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchport.numerics.recording.kernel_site import KernelSite
from torchport.numerics.recording.memory import canary_fits, fill_canary, put_back, storage_bytes, storage_key, to_host
from torchport.numerics.recording.operand import Operand
from torchport.numerics.runs.summary import ELEMENTS, summarize
from torchport.runtime.devices.mirrors import Mirrors

__all__ = ["fill_canaries", "has_unexpected_nonfinite", "inputs_are_finite", "repeat_launch", "summary_flags"]


def fill_canaries(site: KernelSite, args: Sequence[Any], mirrors: Mirrors | None) -> bool:
    """Fill fresh outputs that share no memory with another argument with canaries. Returns whether any was filled."""
    keys = [storage_key(args[index]) for index in site.tensors]
    fitting = [index for index in site.fresh if canary_fits(args[index]) and keys.count(storage_key(args[index])) == 1]
    for index in fitting:
        fill_canary(args[index], mirrors)
    return bool(fitting)


def repeat_launch(
    site: KernelSite,
    launch: Callable[..., None],
    args: Sequence[Any],
    originals: Mapping[int, bytes],
    mirrors: Mirrors | None,
) -> list[str]:
    """Launch once more on the original values and flag outputs whose bits differ.

    ``originals``: what the storages written held before the first launch.
    """
    written = {storage_key(args[index]): args[index] for index in site.written}
    first = {key: storage_bytes(tensor, mirrors) for key, tensor in written.items()}
    for key, tensor in written.items():
        put_back(tensor, originals[key], mirrors)
    launch(*args)
    changed = {key for key, tensor in written.items() if storage_bytes(tensor, mirrors) != first[key]}
    return [
        f"nondeterministic: a second launch gave other bits in {site.names[index]}"
        for index in site.written
        if storage_key(args[index]) in changed
    ]


def summary_flags(
    site: KernelSite, written: Sequence[Operand], args: Sequence[Any], mirrors: Mirrors | None
) -> list[str]:
    """Flags for what the summaries of the outputs show: elements never written, NaN or Inf from finite inputs."""
    summaries = [(operand.name, operand.summary) for operand in written if operand.summary is not None]
    flags = [
        f"canary: {summary['canary']} elements of {name} were not written"
        for name, summary in summaries
        if summary.get("canary")
    ]
    counts = [(name, count) for name, summary in summaries if (count := _unexpected(site, summary))]
    if counts and inputs_are_finite(site, args, mirrors):
        flags += [f"nonfinite: {count} NaN or Inf in {name}, from inputs that have none" for name, count in counts]
    return flags


def has_unexpected_nonfinite(site: KernelSite, summaries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any summary counts a NaN, or an infinity that the kernel's source does not contain."""
    return any(_unexpected(site, summary) for summary in summaries)


def _unexpected(site: KernelSite, summary: Mapping[str, Any]) -> int:
    """How many elements are NaN, or an infinity that the kernel's source does not contain (masks do)."""
    return sum(summary.get(name, 0) for name in {"nan", "posinf", "neginf"} - site.infinities)


def inputs_are_finite(site: KernelSite, args: Sequence[Any], mirrors: Mirrors | None) -> bool:
    """Whether all tensors that are only read are finite. Overwritten ones are not examined."""
    return not any(
        summarize(to_host(args[index], mirrors), False)[1]
        for index in site.tensors
        if site.roles[index] == "in" and args[index].dtype in ELEMENTS
    )
