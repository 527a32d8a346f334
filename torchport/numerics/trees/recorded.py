"""The order of the sums of a recorded kernel, beside the verdict on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from torchport.arithmetic.profile import Profile
from torchport.errors import CompilationError, OptionError, UnsupportedOperation
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.programs.provenance import emulated_by
from torchport.numerics.runs.reader import Launch
from torchport.numerics.trees.follow import Followed, follow
from torchport.numerics.trees.memory import NotFollowed
from torchport.numerics.trees.nodes import CONSTANT, NONE
from torchport.numerics.trees.values import needed
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.numerics.verdicts.replay import NotReplayable
from torchport.numerics.verdicts.verdict import KernelVerdict
from torchport.target import Target

__all__ = ["UNKNOWN", "longest_sum", "sums_of", "with_order"]

UNKNOWN = "not known: "
_STEPS = 300_000


def with_order(verdict: KernelVerdict, call: RecordedCall, launch: Launch) -> KernelVerdict:
    """The verdict on a kernel whose algebra is PROVEN, with the order of its sums; others as they are."""
    if verdict.algebra != "PROVEN":
        return verdict
    try:
        return replace(verdict, order=sums_of(call, launch))
    except (NotFollowed, NotReplayable, UnsupportedOperation, CompilationError, OptionError) as error:
        return replace(verdict, order=f"{UNKNOWN}{error}")


def sums_of(call: RecordedCall, launch: Launch) -> str:
    """The longest sum in the first and the last program of a recorded kernel, in words.

    Raises NotFollowed, NotReplayable, and what a kernel that cannot be compiled or an unknown profile raises.
    """
    replay, storages, _ = replay_of(call.run, launch)
    target = Target.parse(str(call.dump.get("target", "cpu")))
    chip = emulated_by(call.run)
    arithmetic = Profile.load(chip).arithmetic() if chip is not None else ""
    grid = replay.grid
    if min(grid) < 1:
        raise NotFollowed("the launch has no programs")
    ends = {(0, 0, 0), (grid[0] - 1, grid[1] - 1, grid[2] - 1)}
    followed = follow(AlgebraLaunch.of(replay, storages), sorted(ends), target, arithmetic=arithmetic, steps=_STEPS)
    longest, most = longest_sum(followed)
    return f"sums of {longest} terms, each term rounded {most} times at most" if longest > 2 else "no sums"


def longest_sum(followed: Followed) -> tuple[int, int]:
    """How many terms the longest sum has that a result is computed from, and how often one rounds a term at most.

    The latter is the d of Higham's bound, |error| <= d u / (1 - d u) * sum of the terms' magnitudes. Products that
    are fused into a sum are terms; what a mask replaces counts as what it is replaced by.
    """
    nodes = followed.nodes
    roots = np.concatenate([found[found != NONE] for found in followed.results.values()])
    wanted, table, kinds = needed(nodes, roots), nodes.table(), nodes.kinds
    terms, roundings = np.ones(nodes.count, np.int64), np.zeros(nodes.count, np.int64)
    longest = most = 0
    for node, (number, a, b, c) in zip(wanted.tolist(), table[wanted].tolist(), strict=True):
        kind = kinds[number]
        if kind.name == "pick":
            taken = a if kind.detail == "first" else b
            terms[node], roundings[node] = terms[taken], roundings[taken]
        elif kind.name == CONSTANT and nodes.constants[a] == 0:
            terms[node] = 0
        elif kind.name in ("arith.addf", "math.fma"):
            parts = (c,) if kind.name == "math.fma" else (a, b)
            terms[node] = sum(terms[one] for one in parts) + (kind.name == "math.fma")
            roundings[node] = 1 + max(roundings[one] for one in parts)
            longest, most = max(longest, int(terms[node])), max(most, int(roundings[node]))
    return longest, most
