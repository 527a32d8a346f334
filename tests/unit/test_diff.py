"""Two runs compared: root causes are found and ranked, amplifiers are not blamed, nothing is left out in silence."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from recorded import MemoryRun, judge, recorded

import torchport
from torchport.cli.precision import commands
from torchport.cli.precision import diff as command
from torchport.errors import OptionError, RunError
from torchport.numerics.compare.as_json import FORMAT, as_json
from torchport.numerics.compare.diff import LEGAL, PROGRAMS_DIFFER, Diff, compare
from torchport.numerics.compare.sides import local_error
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.recorded_call import calls_of
from torchport.numerics.verdicts.references import reference_of
from torchport.numerics.verdicts.verdict import judge_tensor, verdict_of
from torchport.triton.source import arithmetic_of


def scaled(by: float) -> Any:
    """A fault that makes a value too large."""
    return lambda value: value * (1 + by)


def compared(faults: dict[str, Any], **more: Any) -> Diff:
    return compare(recorded(), recorded(faults, target="chip", **more), judge, truth=True)


def blamed(diff: Diff) -> list[tuple[str, tuple[str, ...]]]:
    return [(root.run, root.nodes) for root in diff.roots if not root.legal]


def test_equal_runs_have_no_root_and_identical_values() -> None:
    diff = compared({})
    assert diff.level == "EXPECTED"
    assert blamed(diff) == []
    assert all(row.identical for row in diff.rows)
    assert not diff.unpaired
    assert diff.coverage["B"].verified == diff.coverage["B"].launches == len(diff.rows)


def test_other_inputs_are_said() -> None:
    diff = compare(recorded(), recorded(seed=1), judge)
    assert [(one.kind, one.name) for one in diff.programs.differences] == [("input", "x_1"), ("input", "w_1")]
    assert diff.status(("FAIL",)) == PROGRAMS_DIFFER
    same = compare(recorded(), recorded(), judge)
    assert same.programs.same and same.notes == []
    assert same.status(("FAIL",)) == LEGAL


def test_a_fault_behind_an_amplifier_is_found_and_the_amplifier_is_only_marked() -> None:
    diff = compared({"mm": scaled(1e-4)})
    assert blamed(diff) == [("B", ("mm",))]
    assert diff.roots[0].share == pytest.approx(1, abs=0.05)
    exp = next(row for row in diff.rows if row.node == "exp")
    assert exp.b is not None and exp.b.level == "EXPECTED"
    assert exp.b.propagated is not None and exp.b.local is not None
    assert exp.b.propagated > 100 * exp.b.local
    assert exp.difference == pytest.approx(exp.b.propagated, rel=0.05)


def test_what_makes_errors_much_larger_is_an_amplifier() -> None:
    """Of x - max(x), most of which cancels, and of exp of large numbers."""
    a, b = recorded(seed=3), recorded({"mm": lambda value: value + 1e-4 * value.roll(1, 0)}, seed=3)
    diff = compare(a, b, judge, truth=True)
    rows = {row.node: row for row in diff.rows}
    factors = {name: row.b.amplification for name, row in rows.items() if row.b is not None and row.b.amplification}
    assert max(factors, key=lambda name: factors[name]) == "exp"
    assert factors["exp"] > 2
    assert blamed(diff) == [("B", ("mm",))]


def test_two_faults_are_both_found_the_greater_share_first() -> None:
    small_first = compared({"mm": scaled(1e-6 * 3), "mm_1": scaled(1e-2)})
    assert blamed(small_first) == [("B", ("mm_1",)), ("B", ("mm",))]
    large_first = compared({"mm": scaled(1e-2), "mm_1": scaled(3e-6)})
    assert blamed(large_first) == [("B", ("mm",)), ("B", ("mm_1",))]


def test_faults_in_both_runs_are_told_apart() -> None:
    diff = compare(recorded({"mm": scaled(1e-3)}), recorded({"mm_1": scaled(1e-3)}), judge, truth=True)
    assert {run for run, _ in blamed(diff)} == {"A", "B"}


def test_values_that_are_not_finite_are_first() -> None:
    def broken(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[0, 0] = float("nan")
        return value

    diff = compared({"mm": scaled(1e-4), "mm_1": broken})
    assert blamed(diff)[0] == ("B", ("mm_1",))
    row = next(row for row in diff.rows if row.node == "mm_1")
    assert row.difference == float("inf")


def test_what_is_fused_away_is_listed_with_the_reason() -> None:
    diff = compared({}, fused=("exp",))
    (missing,) = diff.unpaired
    assert (missing.run, missing.node) == ("A", "exp")
    assert "fused away" in missing.reason
    other = compare(recorded(fused=("exp",)), recorded(), judge)
    assert [(one.run, one.node) for one in other.unpaired] == [("B", "exp")]
    assert "A's side" in other.unpaired[0].reason
    assert [row.node or row.other for row in other.rows] == [row.node for row in compared({}).rows]


def test_statistics_only_is_unverified_and_compares_samples() -> None:
    diff = compare(recorded(kept=False), recorded({"mm": scaled(0.5)}, kept=False), judge)
    assert diff.level == "UNVERIFIED"
    assert all("only statistics" in reason for reason in diff.coverage["B"].unverified)
    samples = {row.node: row.samples for row in diff.rows}
    assert "differ by 0.5" in (samples["mm"] or "")
    assert compare(recorded(kept=False), recorded(kept=False), judge).rows[0].samples == "the same bits"


def test_what_was_seen_at_the_launch_fails_whatever_the_numbers_say() -> None:
    for kept in (True, False):
        run = recorded(kept=kept)
        changed = replace(run.launches[-1], flags=["nondeterministic: a second launch gave other bits in out_ptr0"])
        run.launches[-1] = changed
        diff = compare(recorded(), run, judge)
        assert diff.level == "FAIL"
        (root,) = [root for root in diff.roots if not root.legal]
        assert root.seq == changed.seq
        assert "nondeterministic" in root.reasons[0]


def test_a_kernel_that_is_not_what_the_graph_says_fails_though_it_does_what_its_source_says() -> None:
    def trusting(call: Any, launch: Any) -> Any:
        tensors = []
        for one in call.observed.left_by(launch).values():
            wide = one.value.double()
            reference = reference_of(wide, one.value, [wide], sigma=wide.abs() * 1e-6 + 1e-7)
            tensors.append(judge_tensor(one.value, reference, one.arg.name))
        return verdict_of(launch, tensors, "kernel in float64")

    diff = compare(recorded(), recorded({"mm_1": scaled(0.01)}), trusting, truth=True)
    assert blamed(diff) == [("B", ("mm_1",))]
    assert diff.roots[0].level == "FAIL"
    assert "another computation" in diff.roots[0].reasons[0]


def test_a_judge_that_cannot_is_unverified_with_its_reason() -> None:
    def unable(call: Any, launch: Any) -> Any:
        raise RunError("tensor 12 is damaged")

    diff = compare(recorded(), recorded(), unable)
    assert diff.coverage["A"].unverified == {"tensor 12 is damaged": diff.coverage["A"].launches}


def test_runs_of_different_models_are_refused() -> None:
    other = replace(recorded(), graphs={})
    with pytest.raises(RunError, match="no graph in common"):
        compare(recorded(), other, judge)


def test_json_has_everything_and_no_number_that_json_lacks() -> None:
    diff = compared({"mm": lambda value: value * float("inf")}, fused=("exp",))
    content = json.loads(json.dumps(as_json(diff), allow_nan=False))
    assert content["format"] == FORMAT
    assert content["level"] == "FAIL"
    assert content["truth"] == "fp64"
    assert len(content["rows"]) == len(diff.rows)
    assert content["roots"][0]["nodes"] == ["mm"]
    assert content["environment"][0] == {"what": "target", "a": "cpu", "b": "chip"}
    assert content["unpaired"][0]["node"] == "exp"


@pytest.mark.parametrize(("faults", "status"), [({}, 0), ({"mm": scaled(0.1)}, 1)])
def test_exit_status(
    faults: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    runs: dict[str, MemoryRun] = {"a": recorded(), "b": recorded(faults, target="chip")}
    monkeypatch.setattr(command.Run, "load", lambda path, trust: runs[str(path)])
    monkeypatch.setattr(command, "judge", lambda call, launch, profile: judge(call, launch))
    files = [tmp_path / name for name in ("d.json", "d.xml", "d.html")]
    assert command.diff(Path("a"), Path("b"), "fp64", *files, "fail", 5) == status
    assert all(file.stat().st_size for file in files)
    printed = " ".join(capsys.readouterr().out.split())
    assert "B chip: 9 of 9 launches verified" in printed
    assert ("1. FAIL B launch 1" in printed) == bool(status)
    with pytest.raises(OptionError, match="suspect, fail"):
        command.diff(Path("a"), Path("b"), None, None, None, None, "never", 5)
    with pytest.raises(OptionError, match="fp64"):
        command.diff(Path("a"), Path("b"), "fp128", None, None, None, "fail", 5)


def test_what_a_real_chip_s_profile_explains_is_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    """A run of an emulated H100 of which nothing says that it is one: as a real one's."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(16, 2048, generator=generator).half(), torch.rand(2048, 16, generator=generator).half() / 64
    runs: dict[str, Run] = {}
    for name, options in (("a", {}), ("b", {"emulate": "h100"})):
        torch.compiler.reset()
        compiled = torch.compile(lambda x, y: torch.relu(x @ y), backend="torchport", options=options)
        with torchport.record(tmp_path / name, "full"):
            compiled(x, y)
        run = Run.load(tmp_path / name)
        kernels = {
            key: {**one, "source": one["source"].replace("# torchport arithmetic", "# was")}
            for key, one in run.kernels.items()
        }
        runs[name] = replace(run, kernels=kernels)
    assert all(not arithmetic_of(one["source"]) for one in runs["b"].kernels.values())
    monkeypatch.setattr(command.Run, "load", lambda path, trust: runs[str(path)])

    def diff(a: str, b: str, *profiles: str | None) -> int:
        return command.diff(Path(a), Path(b), None, None, None, None, "suspect", 5, (profiles[0], profiles[1]))

    assert diff("a", "b", None, None) == 1
    assert diff("a", "b", "h100", None) == 1
    assert diff("a", "b", None, "h100") == 0
    printed = capsys.readouterr().out
    assert "EXPECTED" in printed and "B is judged as h100 computes" in printed
    with pytest.raises(OptionError, match="h100-tf32"):
        diff("a", "b", None, "h1000")


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("side", ["A", "B"])
def test_a_value_that_is_not_finite_in_one_run_only_is_an_infinite_difference(side: str, value: float) -> None:
    def broken(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed[0, 0] = value
        return changed

    runs = {"A": recorded(), "B": recorded(), side: recorded({"exp": broken})}
    (row,) = [row for row in compare(runs["A"], runs["B"], judge).rows if row.node == "exp"]
    assert row.difference == float("inf") and row.identical is False


def test_a_local_error_counts_what_is_not_finite_and_integers_that_may_not_differ() -> None:
    values = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    reference = reference_of(values, values.float(), [values, values])
    assert local_error(judge_tensor(torch.tensor([1.0, float("nan"), 4.0]), reference)) == float("inf")
    assert local_error(judge_tensor(torch.tensor([1.0, 2.0, 4.4]), reference)) == pytest.approx(0.4 / 21**0.5)
    whole = reference_of(values.long(), values.long(), [])
    assert local_error(judge_tensor(torch.tensor([1, 2, 5]), whole)) == pytest.approx(1 / 3)
    flipped = reference_of(values.long(), values.long(), [values.long() + torch.tensor([0, 0, 1])])
    assert local_error(judge_tensor(torch.tensor([1, 2, 5]), flipped)) == 0.0


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (None, ""), (float("nan"), ""), (0.314, "31% of the results' difference"),
        (-252.08, "against the results' difference"), (1e6, "more than the results' whole difference"),
    ],
)  # fmt: skip
def test_shares_are_told_where_they_mean_something(share: float | None, words: str) -> None:
    root = compared({"exp": scaled(1.01)}).roots[0]
    assert replace(root, share=share).share_words == words


@pytest.mark.parametrize(
    ("share", "figure"),
    [(None, "–"), (float("nan"), "–"), (0.9921, "99.2 %"), (-1e-5, "0.0 %"), (-0.1, "< 0 %"), (2.5, "> 200 %")],
)
def test_a_column_of_shares_has_figures_where_they_mean_something(share: float | None, figure: str) -> None:
    root = compared({"exp": scaled(1.01)}).roots[0]
    assert replace(root, share=share).share_figure == figure


def test_root_causes_are_in_the_order_a_person_should_look_at_them() -> None:
    """What matters first, FAIL before SUSPECT where both matter; errors that cancel matter; legal ones are last."""
    root = compared({"exp": scaled(1.01)}).roots[0]
    said = [
        ("FAIL", -252.0), ("FAIL", 0.6), ("SUSPECT", 0.99), ("FAIL", 0.3), ("FAIL", None), ("SUSPECT", 0.4),
        ("FAIL", 0.02), ("SUSPECT", -0.05), ("FAIL", 0.004), ("SUSPECT", 0.008),
    ]  # fmt: skip
    roots = [replace(root, level=level, share=share, legal=False) for level, share in said]
    legal = replace(root, level="EXPECTED", share=1.0, legal=True)
    shuffled = [legal, *roots[1::2], *reversed(roots[::2])]
    assert sorted(shuffled, key=lambda one: one.key) == [*roots, legal]
    unknown = replace(root, score=float("nan")), replace(root, score=2.0), replace(root, score=2.0, seq=root.seq + 1)
    assert sorted(reversed(unknown), key=lambda one: one.key) == list(unknown)


def test_what_top_leaves_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    diff = compared({"exp": scaled(1.01), "mm_1": scaled(1.01)})
    command.show(diff, 1)
    out = " ".join(capsys.readouterr().out.split())
    assert f"{len(diff.rows) - 1} more values and 1 more root cause: --top {len(diff.rows)}" in out
    command.show(diff, 0)
    out = " ".join(capsys.readouterr().out.split())
    assert f"{len(diff.rows)} more values and 2 more root causes: --top {len(diff.rows)}" in out
    command.show(diff, len(diff.rows))
    assert "more values" not in capsys.readouterr().out


def test_a_graph_that_was_compiled_twice_has_two_calls() -> None:
    """Both instances count their calls from 0: what they computed is not mixed up."""

    def twice(faults: dict[str, Any]) -> MemoryRun:
        first, second = recorded(), recorded(faults)
        later = [replace(one, seq=one.seq + len(first.launches)) for one in second.launches]
        names = {sha: f"second_{sha}" for sha in second.stored}
        moved = [
            replace(
                one,
                args=tuple(
                    replace(arg, before=names.get(arg.before or ""), after=names.get(arg.after or ""))
                    for arg in one.args
                ),
            )
            for one in later
        ]
        stored = first.stored | {names[sha]: value for sha, value in second.stored.items()}
        return replace(first, launches=[*first.launches, *moved], stored=stored)

    calls = [(call.number, len(call.launches)) for call in calls_of(twice({}))]
    launches = len([one for one in recorded().launches if one.kind == "kernel"])
    assert calls == [(0, launches), (1, launches)]
    diff = compare(twice({}), twice({"mm": scaled(1e-3)}), judge, truth=True)
    assert len(diff.rows) == 2 * launches
    assert {row.call for row in diff.rows} == {0, 1}
    wrong = [root for root in diff.roots if not root.legal]
    assert [(root.run, root.nodes, root.seq) for root in wrong] == [("B", ("mm",), len(recorded().launches) + 1)]
    assert all(row.identical for row in diff.rows if row.call == 0)
    assert not any(row.identical for row in diff.rows if row.call == 1 and row.node == "mm")


@pytest.mark.parametrize("own", [None, "active"])
def test_threads_sleep_while_they_wait(own: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unless the user says otherwise."""
    monkeypatch.setattr(os, "environ", {} if own is None else {"OMP_WAIT_POLICY": own})
    monkeypatch.setattr(command, "diff", lambda *_, **__: LEGAL)
    with pytest.raises(typer.Exit):
        commands.diff(tmp_path, tmp_path)
    assert os.environ["OMP_WAIT_POLICY"] == (own or "passive")
