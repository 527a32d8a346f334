"""One recorded kernel launch, taken out of its run to be executed again and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from torchport.errors import OptionError, TorchportError
from torchport.inductor.kernels import kernel_key, prepare
from torchport.numerics.recording.memory import to_host
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.runs.summary import CANARY
from torchport.numerics.verdicts.hosts_arithmetic import of_source
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.numerics.verdicts.references import references
from torchport.numerics.verdicts.replay import Argument, NotReplayable, Replay, view
from torchport.numerics.verdicts.verdict import TensorVerdict, judge_tensor, worst_level
from torchport.plugin import Launcher, backend_for
from torchport.runtime.devices.device import mirrors_of
from torchport.target import Target
from torchport.triton.source import arithmetic_of, rules_of, triton_kernel

__all__ = [
    "CaseVerdict",
    "KernelCase",
    "case_of",
    "execute",
    "find",
    "gate_of",
    "judge_case",
    "reproduced_on",
    "with_blocks",
]

_GATES = (
    ("never written", "canary"), ("an element", "element"), ("the tensor", "tensor"), ("a tile", "tile"),
    ("biased", "bias"), ("integers", "integers"), ("instead of", "shape"), (" x ", "classes"),
)  # fmt: skip


@dataclass(frozen=True)
class KernelCase:
    """A kernel with all it needs to run.

    function: its name.
    source: its text.
    ttir: its TTIR.
    target: where it ran.
    types: Triton's, by argument.
    config: the block size configuration that was launched.
    arguments, grid, storages: as of a Replay; storages before the launch.
    outputs: names of the arguments that are written.
    recorded: storages after the launch, by number, as the run kept them.
    nodes: FX nodes with their lines.
    blocks: block sizes to compile with; empty for those of the source.
    options: Triton's, as they were recorded.
    trusted: whether its source may be executed; otherwise it runs from its TTIR, confined (docs/security.md).
    """

    function: str
    source: str
    ttir: str
    target: str
    types: Mapping[str, str]
    config: str
    arguments: tuple[Argument, ...]
    grid: tuple[int, int, int]
    storages: Mapping[int, torch.Tensor]
    outputs: tuple[str, ...]
    recorded: Mapping[int, torch.Tensor]
    nodes: tuple[Mapping[str, Any], ...] = ()
    blocks: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    trusted: bool = False

    @property
    def replay(self) -> Replay:
        """The launch, from the kernel's TTIR."""
        return Replay(self.ttir, self.arguments, self.grid, trusted=self.trusted)

    @property
    def written(self) -> list[Argument]:
        """The arguments that are written."""
        return [one for one in self.arguments if one.name in self.outputs]


@dataclass(frozen=True)
class CaseVerdict:
    """The verdict on a case's results.

    level: the worst of its tensors'.
    gate: the first that failed, or empty.
    tensors: the verdict on each output.
    """

    level: str
    gate: str
    tensors: tuple[TensorVerdict, ...]

    @property
    def kind(self) -> tuple[str, str]:
        """The verdict's class: what stays the same while a case is made smaller."""
        return self.level, self.gate


def find(run: Run, kernel: str, launch: int | None = None) -> Launch:
    """The launch that ``kernel`` names: by its number, a function, the beginning of a key, an operation or an FX node.

    Of several, that with the number ``launch``, else the first that is flagged, else the first whose tensors were kept.
    Raises OptionError if there is none; it lists the kernels.
    """
    launches = [one for one in run.launches if one.kind in ("kernel", "extern")]
    matches = _matching(run, launches, kernel)
    if not matches:
        known = dict.fromkeys(_name(run, one) for one in launches)
        raise OptionError(f"{run.path} has no kernel {kernel!r}; it has: {', '.join(known)}")
    if launch is not None:
        matches = [one for one in matches if one.seq == launch]
        if not matches:
            raise OptionError(f"launch {launch} of {run.path} is not a launch of kernel {kernel!r}")
    kept = [one for one in matches if any(arg.after is not None for arg in one.args)]
    return next((one for one in kept if one.flags), (kept or matches)[0])


def _matching(run: Run, launches: Sequence[Launch], kernel: str) -> list[Launch]:
    """Launches whose number or name is ``kernel``, else whose key begins so, else that compute such an FX node."""
    named = [launch for launch in launches if kernel in (str(launch.seq), _name(run, launch))]
    keyed = [launch for launch in launches if len(kernel) >= 4 and (launch.kernel or "").startswith(kernel)]
    return named or keyed or [launch for launch in launches if kernel in launch.nodes]


def _name(run: Run, launch: Launch) -> str:
    kernel = run.kernels.get(launch.kernel or "", {})
    return str(kernel.get("function") or launch.operation or launch.kernel or "?")


def case_of(run: Run, launch: Launch) -> KernelCase:
    """Take a launch out of a run. Raises OptionError for an operator call, NotReplayable if something was not kept."""
    if launch.kernel is None:
        raise OptionError(
            f"launch {launch.seq} is the operator {launch.operation}, which no kernel of torchport computes; "
            "torchport explain says what is known of it"
        )
    replay, storages, outputs = replay_of(run, launch)
    kernel = run.kernels[launch.kernel]
    after = {
        arg.storage: run.tensor(arg.after) for arg in launch.args if arg.storage is not None and arg.after is not None
    }
    if missing := [one.name for one in outputs if one.storage not in after]:
        raise NotReplayable(f"what argument {missing[0]} held after the launch was not kept")
    return KernelCase(
        kernel["function"], kernel["source"], kernel["ttir"], kernel["target"], kernel["types"],
        kernel.get("config") or "",
        replay.arguments, replay.grid, storages, tuple(one.name for one in outputs), after, tuple(kernel["nodes"]),
        options=kernel.get("options") or {}, trusted=run.trusted,
    )  # fmt: skip


def execute(case: KernelCase, target: str | None = None) -> dict[int, torch.Tensor]:
    """The storages after the kernel ran on ``target`` (its own where None), compiled from its source.

    A case that is not trusted runs on ``cpu`` only, from its TTIR. Raises OptionError for another target then,
    TargetError where nothing compiles for or runs on the target here, and what compiling and running raise.
    """
    name = target or case.target
    parsed = Target.parse(name)
    if not case.trusted:
        if parsed != Target("cpu") or case.blocks:
            raise OptionError(
                f"kernel {case.function} runs so only from its Python source, which is executed for that: repeat with "
                "--trust (trust=True) if you trust where the folder comes from"
            )
        rules = rules_of(case.source) or of_source(case.source)
        return case.replay.run(case.storages, {"rules": rules} if rules else None)
    launcher, function = _linked(case, parsed)
    device = backend_for(parsed).driver(parsed).device
    after = {number: storage.to(device, copy=True) for number, storage in case.storages.items()}
    values = [one.value if one.storage is None else view(one, after[one.storage]) for one in case.arguments]
    launcher.bind(*case.grid, function)(*values)
    mirrors = mirrors_of(name)
    return {number: to_host(storage, mirrors) for number, storage in after.items()}


def _linked(case: KernelCase, target: Target) -> tuple[Launcher, int]:
    if not case.blocks:
        key = kernel_key(case.source, target)
        return prepare(key, case.function, str(target), case.types, case.source)
    kernel = triton_kernel(case.function, case.source)
    options = dict(kernel.options)
    if arithmetic := arithmetic_of(case.source):
        options["arithmetic"] = arithmetic
    backend = backend_for(target)
    binary = backend.compiler(target).compile(kernel.source(case.blocks), options)
    return backend.driver(target).load(binary, list(case.types.values()))


def judge_case(case: KernelCase, results: Mapping[int, torch.Tensor]) -> CaseVerdict:
    """The verdict on ``results``, storages after the launch, against the kernel in float64 on the case's inputs.

    The target's profile is not considered. Raises what ``Replay`` raises.
    """
    replay = case.replay
    rules = rules_of(case.source)
    ulp = {name: float(rule["ulp"]) for name, rule in rules.get("functions", {}).items() if "ulp" in rule}
    expected = references(replay, case.storages, case.written, ulp=ulp)
    found = []
    for one in case.written:
        assert one.storage is not None, one.name
        y = view(one, results[one.storage])
        found.append(judge_tensor(y, expected[one.name], one.name, None, _canaries(y)))
    level = worst_level(one.level for one in found)
    reasons = [reason for one in found if one.level == level for reason in one.reasons]
    return CaseVerdict(level, gate_of(reasons), tuple(found))


def gate_of(reasons: Sequence[str]) -> str:
    """The gate that the first of a verdict's reasons names."""
    first = reasons[0] if reasons else ""
    return next((gate for text, gate in _GATES if text in first), "")


def _canaries(y: torch.Tensor) -> int:
    if y.dtype not in CANARY:
        return 0
    bits, value = CANARY[y.dtype]
    return int(torch.count_nonzero(y.contiguous().view(bits) == value))


def reproduced_on(
    case: KernelCase, wanted: tuple[str, str], run: Callable[[KernelCase, str], Mapping[int, torch.Tensor]] = execute
) -> tuple[str | None, list[str]]:
    """The first of the case's target and ``cpu`` on which it gives the verdict class ``wanted``, or None.

    Also returns what each of them gave instead.
    """
    notes = []
    for target in dict.fromkeys((case.target, "cpu")):
        try:
            found = judge_case(case, run(case, target))
        except TorchportError as error:
            notes.append(f"{target}: {error}")
            continue
        if found.kind == wanted:
            return target, notes
        notes.append(f"{target} gives {' '.join(found.kind).strip()} here")
    return None, notes


def with_blocks(case: KernelCase, blocks: Mapping[str, int]) -> KernelCase:
    """The case with other block sizes, its grid fitting its sizes. Raises OptionError where a size is not known."""
    sizes = {one.name: one.value for one in case.arguments if one.storage is None}
    grid = list(case.grid)
    for axis, letter in enumerate("XYZ"):
        if f"{letter}BLOCK" not in blocks:
            continue
        size = sizes.get(f"{letter.lower()}numel")
        if not isinstance(size, int):
            raise OptionError(f"kernel {case.function} has no argument {letter.lower()}numel: its grid is not known")
        grid[axis] = -(-size // blocks[f"{letter}BLOCK"])
    return replace(case, blocks=dict(blocks), grid=(grid[0], grid[1], grid[2]))
