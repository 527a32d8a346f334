"""The commands about the precision of models, kernels and targets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from torchport.cli.model import Model

__all__ = ["commands"]

commands = typer.Typer()

Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="The folder is from somebody you trust: execute its kernels' source, and let them access any memory.",
    ),
]
_PROFILE_OF = "What {}'s chip computes as, where it is a real one: h100, h100-tf32 ... or FILE.json."


def _wait_asleep() -> None:
    """Have this process' OpenMP threads sleep while they wait; called before torch is imported, which starts them.

    Judging is thousands of operations on small tensors. Where processors are busy, threads that spin for each other
    take a quarter of its time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@commands.command()
def diff(
    a: Annotated[Path, typer.Argument(help="The run folder of the reference, A.")],
    b: Annotated[Path | None, typer.Argument(help="The run folder to judge, B; none with --ranks.")] = None,
    more: Annotated[list[Path] | None, typer.Argument(help="More run folders, compared with A, too.")] = None,
    truth: Annotated[
        str | None, typer.Option(help="fp64: also report errors against the whole graph in float64.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", help="Also write JUnit XML to this file, for CI.")
    ] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Also write an HTML page to this file.")] = None,
    fail_on: Annotated[
        str, typer.Option(help="Exit status 1 from this verdict on: unverified, suspect or fail.")
    ] = "fail",
    top: Annotated[int, typer.Option(help="How many rows to print.", min=0)] = 20,
    profile_a: Annotated[str | None, typer.Option(help=_PROFILE_OF.format("A"))] = None,
    profile_b: Annotated[str | None, typer.Option(help=_PROFILE_OF.format("B"))] = None,
    algebra: Annotated[
        bool, typer.Option("--algebra", help="Also prove that kernels compute the algebra of their FX nodes.")
    ] = False,
    ranks: Annotated[
        bool, typer.Option("--ranks", help="A is the folder of a job of several ranks: compare them with each other.")
    ] = False,
    trust: Trust = False,
) -> None:
    """Compare two recorded runs: are they one program, which kernels change the numbers, and is that legal?

    Exit status 0: the same, or differences that are legal. 1: a fault, a kernel of either run computes what no legal
    arithmetic gives. 2: not comparable, with what is missing. 3: the programs differ, or the weights or inputs that
    they were given.
    """
    _wait_asleep()
    profiles = profile_a, profile_b
    if ranks == (b is not None):
        raise typer.BadParameter("two run folders are compared, or with --ranks the ranks of one job")
    from torchport.cli.precision.diff import diff
    from torchport.cli.precision.diff_ranks import diff_ranks
    from torchport.numerics.runs.ranks import is_ranks

    if b is not None and more:
        if junit_file is not None or any(profiles):
            raise typer.BadParameter("--junit, --profile-a and --profile-b are for two runs")
        from torchport.cli.precision.diff_several import diff_several

        folders = [a, b, *more]
        raise typer.Exit(diff_several(folders, truth, json_file, html_file, fail_on, top, trust=trust, algebra=algebra))
    if b is None or is_ranks(a) or is_ranks(b):
        for option, value in (("--truth", truth), ("--junit", junit_file), ("--html", html_file)):
            if value is not None:
                raise typer.BadParameter(f"{option} is not there for runs of several ranks")
        raise typer.Exit(diff_ranks(a, b, json_file, top, profiles, trust=trust))
    raise typer.Exit(
        diff(a, b, truth, json_file, junit_file, html_file, fail_on, top, profiles, trust=trust, algebra=algebra)
    )


@commands.command()
def record(
    model: Model,
    folder: Annotated[Path, typer.Option("-o", "--output", help="The run folder, new or empty.")],
    target: Annotated[str, typer.Option(help="The target: cpu, opencl ...")] = "cpu",
    emulated: Annotated[str | None, typer.Option("--as", help="Emulate this profile on the CPU.")] = None,
    level: Annotated[str, typer.Option(help="full, or stats: no tensors but those of flagged launches.")] = "full",
    calls: Annotated[int, typer.Option(help="How often to run the model.", min=1)] = 1,
    eager: Annotated[bool, typer.Option("--eager", help="Do not compile it: record torch's operators.")] = False,
    train: Annotated[bool, typer.Option("--train", help="Also record the gradients.")] = False,
    precision: Annotated[
        str | None, typer.Option(help="Compute kernels in higher precision: a file of torchport fix, float64, float32.")
    ] = None,
) -> None:
    """Record a run of a model, compiled or eager, to compare it with another one (torchport diff)."""
    from torchport.cli.precision.record import record

    raise typer.Exit(
        record(model, folder, target, emulated, level, calls, eager=eager, train=train, precision=precision)
    )


@commands.command()
def predict(
    model: Model,
    chips: Annotated[str, typer.Option("--as", help="Comma separated profiles: h100, h100-tf32, mi300x ...")] = "h100",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all outputs.")] = False,
    record: Annotated[Path | None, typer.Option(help="Record each chip's run in a folder below this one.")] = None,
    bits: Annotated[bool, typer.Option("--bits", help="Show the results' bits, and what is known of them.")] = False,
) -> None:
    """Run a model in the arithmetic of other chips, and show its errors against float64, or its bits."""
    from torchport.cli.precision.predict import predict, predict_bits

    (predict_bits if bits else predict)(model, chips, as_json=as_json, folder=record)


@commands.command()
def batch(
    model: Model,
    target: Annotated[str, typer.Option(help="The target: cpu, opencl ...")] = "cpu",
    emulated: Annotated[str | None, typer.Option("--as", help="Emulate this profile on the CPU.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    orders: Annotated[
        bool, typer.Option("--orders/--no-orders", help="Also compare the order of each kernel's operations.")
    ] = True,
) -> None:
    """Check whether results depend on the rest of the batch (exit status 1 if a bit differs)."""
    from torchport.cli.precision.batch import batch

    raise typer.Exit(batch(model, target, emulated, as_json=as_json, orders=orders))


@commands.command()
def probe(
    target: Annotated[str, typer.Option(help="The target to measure: cpu, opencl ...")] = "cpu",
    emulated: Annotated[str | None, typer.Option("--as", help="Measure this profile's emulation on the CPU.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="Compare with this profile (exit status 1 if it differs).")
    ] = None,
    old: Annotated[
        Path | None, typer.Option("--diff", help="Compare with this passport (exit status 1 if it differs).")
    ] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the passport to this file.")] = None,
    bf16_products: Annotated[
        str, typer.Option(help="The option bf16_products that is measured: auto, exact or pairs.")
    ] = "auto",
) -> None:
    """Measure a target's arithmetic: how dots sum, rounding, subnormals, conversions, errors of functions."""
    from torchport.cli.precision.probe import probe

    raise typer.Exit(probe(target, emulated, profile, old, output, bf16_products))


@commands.command()
def impact(
    model: Model,
    a: Annotated[str, typer.Option("--a", help="The reference: eager, a target or a profile (h100).")] = "cpu",
    b: Annotated[
        str, typer.Option("--b", help="What to judge, comma separated: eager, targets or profiles (h100,mi300x).")
    ] = "h100",
    task: Annotated[
        str | None,
        typer.Option(
            help="FILE.py:FUNCTION: takes what the model returned, gives answers, or (answers, right answers).",
        ),
    ] = None,
    points: Annotated[float, typer.Option(help="Percentage points that sample sizes are given for.")] = 2.0,
    precision: Annotated[Path | None, typer.Option(help="The option of that name for --b: a file of fix.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what other arithmetic does to a causal language model, and how sure that is.

    Logits, divergence, flipped tokens, perplexity and a task's answers have intervals, beside the floor: the reference
    against itself on another number of threads.
    """
    from torchport.cli.precision.impact import show

    show(model, a, b, as_json=as_json, task=task, points=points, precision=precision)


@commands.command()
def fix(
    a: Annotated[str, typer.Argument(help="The reference: a run folder, eager, float64, a target or a profile.")],
    b: Annotated[str, typer.Argument(help="What to mend: a run folder, a target or a profile (h100-tf32).")],
    model: Annotated[str, typer.Option(help="FILE.py:FUNCTION; the function returns (model, inputs).")],
    metric: Annotated[
        str,
        typer.Option(
            help="flips, kl, perplexity, error, of training loss, gradients, or FILE.py:FUNCTION(results of A, of B)."
        ),
    ] = "flips",
    budget: Annotated[
        str, typer.Option(help="What the metric may be: a number, or floor (what A itself is uncertain by).")
    ] = "floor",
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path("precision.json"),
    trials: Annotated[int, typer.Option(help="How many sets of kernels are tried at most.", min=1)] = 100,
    timed: Annotated[int, typer.Option(help="How often the model's step is timed; 0 not to.", min=0)] = 15,
    remedy: Annotated[
        str, typer.Option(help="type (wider), order (sums in blocks), or either: order where it does as well.")
    ] = "either",
    train: Annotated[int, typer.Option(help="Train for so many steps in place of one inference.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust: Trust = False,
) -> None:
    """Find the fewest kernels that must run in higher precision, or add in another order, to bring back a metric.

    Writes a file for torch.compile(..., options={"precision": FILE}). Exit status 0: the budget is met, with a file or
    without need for one; 1: no set of kernels meets it.
    """
    from torchport.cli.precision.fix import fix

    status = fix(
        a, b, model, metric, budget, output, trials, timed, as_json=as_json, trust=trust, remedy=remedy, train=train
    )
    raise typer.Exit(status)


@commands.command()
def equal(
    a: Annotated[str, typer.Argument(help="FILE.py:FUNCTION; the function returns (kernel, grid, arguments).")],
    b: Annotated[str, typer.Argument(help="Another one, with the same tensors.")],
    seeds: Annotated[int, typer.Option(help="How many random draws must agree.", min=1)] = 3,
    order: Annotated[
        bool, typer.Option("--order", help="Ask for the same operations in the same order: the same bits.")
    ] = False,
    rows: Annotated[
        bool, typer.Option("--rows", help="Tensors may differ in size, as batches do: compare their first elements.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove that two Triton kernels compute the same algebra, or refute it, without any tolerance.

    Exit status 0: PROVEN; 1: REFUTED; 2: NOT PROVABLE.
    """
    from torchport.cli.precision.equal import equal

    raise typer.Exit(equal(a, b, seeds, order=order, rows=rows, as_json=as_json))


@commands.command()
def trees(
    kernel: Annotated[str, typer.Argument(help="FILE.py:FUNCTION; the function returns (kernel, grid, arguments).")],
    target: Annotated[str, typer.Option(help="The target whose order is shown: cpu, cpu:x86_64:avx2 ...")] = "cpu",
    element: Annotated[
        list[str] | None, typer.Option("--element", help="NAME[PLACE]: of this element; may be given again.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the order in which a Triton kernel adds: one tree for each kind of element that it writes.

    Exit status 2: the order is not known; the reason is named.
    """
    from torchport.cli.precision.trees import trees

    raise typer.Exit(trees(kernel, target, element or [], as_json=as_json))


@commands.command()
def invariant(
    kernel: Annotated[
        str, typer.Argument(help="FILE.py:FUNCTION; FUNCTION(rows) returns (kernel, grid, arguments) for so many rows.")
    ],
    target: Annotated[str, typer.Option(help="The target: cpu, cpu:x86_64:avx2 ...")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Certify that a Triton kernel's results for a row do not depend on the batch, from the order of its operations.

    Exit status 0: CERTIFIED; 1: DEPENDS; 2: NOT KNOWN.
    """
    from torchport.cli.precision.trees import invariant

    raise typer.Exit(invariant(kernel, target, as_json=as_json))


@commands.command(name="eval")
def evaluate(
    suite: Annotated[
        str, typer.Argument(help="A TOML file, or default: the models that come with torchport.")
    ] = "default",
    targets: Annotated[
        str | None, typer.Option(help="Comma separated: cpu, opencl, h100(emulated), cuda:90(compiled) ...")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the report and its state.")] = Path("eval"),
    models: Annotated[str | None, typer.Option(help="Only these models of the suite, comma separated.")] = None,
    workers: Annotated[int, typer.Option(help="How many cells are measured at a time.", min=1)] = 1,
    clock: Annotated[str, typer.Option(help="wall; cpu: the processor's time, where others use the machine.")] = "wall",
    threads: Annotated[int, typer.Option(help="Threads of torch; 0 leaves it to torch.", min=0)] = 0,
    timeout: Annotated[float | None, typer.Option(help="Seconds for one cell.", min=1)] = None,
    memory: Annotated[str | None, typer.Option(help="Resident memory of one cell, as 8G.")] = None,
    again: Annotated[str, typer.Option(help="Measure anew: models and targets, comma separated; bad; all.")] = "",
    baseline: Annotated[
        Path | None, typer.Option(help="An eval.json; what became worse is marked (exit status 1).")
    ] = None,
    certificates: Annotated[
        Path | None, typer.Option(help="Folder of certificates; default: docs/certificates.")
    ] = None,
    notes: Annotated[
        Path | None, typer.Option(help='JSON, {"MODEL on TARGET": explanation}, shown beside cells.')
    ] = None,
    fail_on: Annotated[
        str, typer.Option(help="Exit status 1 from this level of a cell on: unverified, suspect, fail; or never.")
    ] = "fail",
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Keep recorded runs with a bad launch.")] = False,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign the report with the private key in this file.")
    ] = None,
    verify: Annotated[Path | None, typer.Option(help="Check an eval.json's hash and signature, and stop.")] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="With --verify: one of the public keys in this file must have signed it.")
    ] = None,
    only_report: Annotated[
        bool, typer.Option("--only-report", help="Measure nothing: a report of what is there.")
    ] = False,
) -> None:
    """Run many models on many targets, each cell in a process of its own, and write one report.

    Coverage, times, memory, accuracy with intervals, and verdicts, as eval.html and eval.json. A run that was stopped
    goes on where it was. Exit status 1: a cell failed, or is worse than in the baseline.
    """
    from torchport.cli import evaluate as command
    from torchport.cli.signatures import refuse_together

    refuse_together(sign, verify, public_key, of="report")
    if verify is not None:
        raise typer.Exit(command.verify(verify, public_key))
    raise typer.Exit(
        command.evaluate(
            suite, targets, output, models=models, workers=workers, clock=clock, threads=threads, timeout=timeout,
            memory=memory, again=again, baseline=baseline, certificates_in=certificates, notes=notes, fail_on=fail_on,
            keep_runs=keep_runs, key=sign, only_report=only_report,
        )
    )  # fmt: skip


@commands.command()
def repro(
    run: Annotated[
        Path, typer.Argument(help="A recorded run of level full, or one in which the kernel's launch was flagged.")
    ],
    kernel: Annotated[str, typer.Argument(help="Function, beginning of its key, FX node or number of a launch.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write; default: repro-FUNCTION-LAUNCH.")
    ] = None,
    launch: Annotated[int | None, typer.Option(help="Which of the kernel's launches.")] = None,
    trials: Annotated[int, typer.Option(help="Most replays used to make it smaller.", min=0)] = 100,
    trust: Trust = False,
) -> None:
    """Write a folder that reproduces one kernel of a recorded run, as small as the verdict allows.

    Its script run.py has exit status 1 if the fault occurs, 0 if it does not, 2 if the script cannot run.
    """
    from torchport.cli.precision.repro import repro

    repro(run, kernel, output, launch, trials, trust=trust)


@commands.command()
def bisect(
    a: Annotated[str, typer.Argument(metavar="A|MODEL", help="A run folder, or FILE.py:FUNCTION.")],
    b: Annotated[Path | None, typer.Argument(help="The run folder to search; A is the reference.")] = None,
    target: Annotated[str, typer.Option(help="With MODEL: the target to run on.")] = "cpu",
    repeat: Annotated[int, typer.Option(help="With MODEL: number of runs, for intermittent faults.", min=1)] = 1,
    train: Annotated[bool, typer.Option("--train", help="With MODEL: also run the backward pass.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust: Trust = False,
) -> None:
    """Find the first kernel whose results no legal arithmetic gives on its inputs.

    For a model, other block sizes of its kernels are tried too. Exit status 1 if there is such a kernel; 3 if there is
    none, and the two runs are different programs or were given other data.
    """
    _wait_asleep()
    from torchport.cli.precision.bisect import bisect

    raise typer.Exit(bisect(a, b, target, repeat, as_json=as_json, train=train, trust=trust))


@commands.command()
def explain(
    run: Annotated[Path, typer.Argument(help="A recorded run.")],
    kernel: Annotated[str, typer.Argument(help="Function, beginning of its key, FX node or number of a launch.")],
    launch: Annotated[int | None, typer.Option(help="Which of the kernel's launches.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust: Trust = False,
) -> None:
    """Explain what a kernel of a recorded run computes, whether its numbers are legal, and why."""
    from torchport.cli.precision.explain import explain

    explain(run, kernel, launch, as_json=as_json, trust=trust)
