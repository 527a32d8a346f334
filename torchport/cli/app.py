"""The commands and their arguments; each one's work is in the file of its name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from torchport.errors import TorchportError

__all__ = ["app", "main"]

app = typer.Typer(
    help="torch.compile through Triton kernels on any target.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(help="Look at, or clear, the folder of compiled kernels.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
quarantine_app = typer.Typer(help="Kernels that are avoided, as they gave wrong results.", no_args_is_help=True)
app.add_typer(quarantine_app, name="quarantine")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print torchport's version and stop.")] = False,
) -> None:
    if version:
        from torchport import __version__

        typer.echo(f"torchport {__version__}")
        raise typer.Exit


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, and the command that fixes it (exit status 1 when something is)."""
    from torchport.cli.doctor import doctor

    raise typer.Exit(doctor())


@app.command()
def targets(
    all_: Annotated[bool, typer.Option("--all", help="Also targets that are compiled for only; capabilities.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: devices, states, capabilities.")] = False,
) -> None:
    """List every installed backend, its devices, what they can do, and what is missing."""
    from torchport.cli.targets import targets

    targets(all_=all_, as_json=as_json)


@app.command()
def demo(
    layers: Annotated[int, typer.Option(help="Transformer layers.", min=1)] = 4,
    hidden: Annotated[int, typer.Option(help="Hidden size, a multiple of 64.", min=64)] = 256,
    batch: Annotated[int, typer.Option(min=1)] = 2,
    sequence: Annotated[int, typer.Option(min=2)] = 128,
    runs: Annotated[int, typer.Option(help="Timed runs of each, interleaved.", min=1)] = 30,
) -> None:
    """Compile a transformer with random weights: compile time, kernels, speed against eager, error against float64."""
    from torchport.cli.demo import demo

    raise typer.Exit(demo(layers=layers, hidden=hidden, batch=batch, sequence=sequence, runs=runs))


@app.command()
def opt(
    file: Annotated[str, typer.Argument(help="TTIR or MLIR file; - reads standard input.")] = "-",
    passes: Annotated[
        str | None,
        typer.Option("-p", "--passes", help="name1,name2{option=value}; the target's own pipeline when left out."),
    ] = None,
    after: Annotated[str | None, typer.Option(help="Start behind this pass: FILE is what it left.")] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this pass.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here, not to standard output.")] = None,
    target: Annotated[str, typer.Option(help="The target whose pipeline is the default.")] = "cpu",
    list_: Annotated[bool, typer.Option("--list", help="List the passes and the target's pipeline.")] = False,
    verify_only: Annotated[bool, typer.Option(help="Import and verify; run no pass.")] = False,
    print_after_all: Annotated[bool, typer.Option(help="Print the IR after each pass to standard error.")] = False,
) -> None:
    """Run passes on a kernel's IR and print the result; replays any file that TORCHPORT_DEBUG=4 wrote."""
    from torchport.cli import opt as command

    if list_:
        command.list_passes(target)
        return
    command.opt(
        file,
        passes="" if verify_only else passes,
        after=after,
        until=until,
        output=output,
        target=target,
        print_after_all=print_after_all,
    )


_MODEL = Annotated[str, typer.Argument(help="FILE.py:FUNCTION; the function returns (model, inputs).")]
_PROFILE_OF = "What {}'s chip computes as, where it is a real one: h100, h100-tf32 ... or FILE.json."
_TARGETS = Annotated[str, typer.Option(help="Comma separated: cpu, cuda:90, hip:gfx942 ...")]


@app.command()
def port(
    model: _MODEL,
    targets: _TARGETS = "cpu,cuda:90,hip:gfx942",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results here, too.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page to look at here, one file.")] = None,
    strict: Annotated[bool, typer.Option(help="Exit status 1 also where a limit of a target is exceeded.")] = False,
) -> None:
    """Compile a model's kernels for targets that need not be here, and show which compile and what they take.

    Exit status 1: a kernel does not compile, or a target is not available.
    """
    from torchport.cli.port import port

    raise typer.Exit(port(model, targets, json_file, html_file, strict=strict))


@app.command()
def build(
    model: _MODEL,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")],
    targets: _TARGETS = "cpu,cuda:90,hip:gfx942",
) -> None:
    """Compile a model's kernels for targets that need not be here, and write the machine code with a manifest."""
    from torchport.cli.port import build

    raise typer.Exit(build(model, targets, output))


@app.command()
def conformance(
    target: Annotated[str, typer.Option(help="The target to check: cpu, opencl:0 ...")] = "cpu",
    level: Annotated[str, typer.Option(help="quick (minutes) or full (everything).")] = "quick",
    only: Annotated[list[str] | None, typer.Option(help="Run the case of this id, or those that match.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the certificate here (JSON), and a .md beside it.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds after which a case counts as hung.", min=1)] = 120,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier run of the same suite found.")] = False,
    quarantine: Annotated[bool, typer.Option("--quarantine", help="Have kernels avoided that failed alone.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the cases and stop.")] = False,
    verify: Annotated[Path | None, typer.Option(help="Check a certificate's hash and stop.")] = None,
) -> None:
    """Check that a target computes what it should, and write a certificate (exit status 1: a failure).

    A run that was stopped continues where it was.
    """
    from torchport.cli import conformance as command

    if verify is not None:
        raise typer.Exit(command.verify(verify))
    if list_:
        command.list_cases(level, only or ())
        return
    status = command.conformance(
        target, level, only or (), output, jobs=jobs, timeout=timeout, fresh=fresh, quarantine=quarantine
    )
    raise typer.Exit(status)


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="The run folder to compare with.")],
    b: Annotated[Path, typer.Argument(help="The run folder that is compared.")],
    truth: Annotated[str | None, typer.Option(help="fp64: also errors against the whole graph in float64.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here.")] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here, for CI.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page to look at here, one file.")] = None,
    fail_on: Annotated[
        str, typer.Option(help="unverified, suspect or fail: from which on the exit status is 1.")
    ] = "fail",
    top: Annotated[int, typer.Option(help="How many values to print.", min=0)] = 20,
    profile_a: Annotated[str | None, typer.Option(help=_PROFILE_OF.format("A"))] = None,
    profile_b: Annotated[str | None, typer.Option(help=_PROFILE_OF.format("B"))] = None,
) -> None:
    """Compare two recorded runs: which kernel changes the numbers, by how much, and whether it may.

    Exit status 1: a kernel of either run computes what no legal arithmetic gives.
    """
    from torchport.cli.precision.diff import diff

    raise typer.Exit(diff(a, b, truth, json_file, junit_file, html_file, fail_on, top, (profile_a, profile_b)))


@app.command()
def predict(
    model: _MODEL,
    chips: Annotated[str, typer.Option("--as", help="Comma separated profiles: h100, h100-tf32, mi300x ...")] = "h100",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, all outputs.")] = False,
    record: Annotated[Path | None, typer.Option(help="Record each chip's run into a folder here.")] = None,
) -> None:
    """Run a model in the arithmetic of chips that are not here, and show its errors against float64."""
    from torchport.cli.precision.predict import predict

    predict(model, chips, as_json=as_json, folder=record)


@app.command()
def batch(
    model: _MODEL,
    target: Annotated[str, typer.Option(help="The target: cpu, opencl ...")] = "cpu",
    emulated: Annotated[str | None, typer.Option("--as", help="Emulate this profile on the CPU.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check whether an example's results depend on what else is in its batch (exit status 1: a bit differs)."""
    from torchport.cli.precision.batch import batch

    raise typer.Exit(batch(model, target, emulated, as_json=as_json))


@app.command()
def probe(
    target: Annotated[str, typer.Option(help="The target to measure: cpu, opencl ...")] = "cpu",
    emulated: Annotated[str | None, typer.Option("--as", help="Measure this profile's emulation on the CPU.")] = None,
    profile: Annotated[str | None, typer.Option(help="Compare with this profile (exit status 1: it differs).")] = None,
    old: Annotated[Path | None, typer.Option("--diff", help="Compare with this passport (exit status 1).")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the passport here.")] = None,
) -> None:
    """Measure a target's arithmetic: how dots add up, roundings, subnormals, conversions, errors of functions."""
    from torchport.cli.precision.probe import probe

    raise typer.Exit(probe(target, emulated, profile, old, output))


@app.command()
def impact(
    model: _MODEL,
    a: Annotated[str, typer.Option("--a", help="The reference: eager, a target or a profile (h100).")] = "cpu",
    b: Annotated[str, typer.Option("--b", help="What is compared: eager, a target or a profile (h100).")] = "h100",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what other arithmetic does to a causal language model: logits, divergence, tokens that flip."""
    from torchport.cli.precision.impact import show

    show(model, a, b, as_json=as_json)


@app.command()
def repro(
    run: Annotated[Path, typer.Argument(help="A recorded run, level full, or with the kernel's launch flagged.")],
    kernel: Annotated[str, typer.Argument(help="Function, beginning of its key, FX node or number of a launch.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder (repro-FUNCTION-LAUNCH).")] = None,
    launch: Annotated[int | None, typer.Option(help="Which of the kernel's launches.")] = None,
    trials: Annotated[int, typer.Option(help="Replays that making it smaller may take.", min=0)] = 100,
) -> None:
    """Write a folder that reproduces one kernel of a recorded run alone, as small as the verdict's class allows.

    Its script run.py has exit status 1 while the fault is still there, 0 when it is not, 2 when it cannot be run.
    """
    from torchport.cli.precision.repro import repro

    repro(run, kernel, output, launch, trials)


@app.command()
def bisect(
    a: Annotated[str, typer.Argument(metavar="A|MODEL", help="A run folder, or FILE.py:FUNCTION.")],
    b: Annotated[Path | None, typer.Argument(help="The run folder that is searched; A is compared with it.")] = None,
    target: Annotated[str, typer.Option(help="Of MODEL: where it is run.")] = "cpu",
    repeat: Annotated[int, typer.Option(help="Of MODEL: so many runs, for faults that come and go.", min=1)] = 1,
    train: Annotated[bool, typer.Option("--train", help="Of MODEL: run backward, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the first kernel, in order of execution, that computes on its own inputs what no legal arithmetic gives.

    Of a model, its other block sizes are tried, too. Exit status 1: there is such a kernel.
    """
    from torchport.cli.precision.bisect import bisect

    raise typer.Exit(bisect(a, b, target, repeat, as_json=as_json, train=train))


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="A recorded run.")],
    kernel: Annotated[str, typer.Argument(help="Function, beginning of its key, FX node or number of a launch.")],
    launch: Annotated[int | None, typer.Option(help="Which of the kernel's launches.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say in words what a kernel of a recorded run computes, whether its numbers are legal, and why."""
    from torchport.cli.precision.explain import explain

    explain(run, kernel, launch, as_json=as_json)


@app.command("new-backend")
def new_backend(
    name: Annotated[str, typer.Argument(help="The first word of its targets: small letters, digits, underscores.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write (torchport-NAME).")] = None,
    triton: Annotated[bool, typer.Option("--triton", help="For a vendor with a Triton compiler of its own.")] = False,
) -> None:
    """Write a package with a backend that works and its tests, to be changed into a vendor's (docs/vendor-guide.md)."""
    from torchport.cli.new_backend import new_backend

    new_backend(name, output, triton=triton)


@cache_app.command("info")
def cache_info() -> None:
    """Print the folder, its size and how many kernels it holds."""
    from torchport.cli.cache import info

    info()


@cache_app.command("clear")
def cache_clear() -> None:
    """Delete every compiled kernel."""
    from torchport.cli.cache import clear

    clear()


@quarantine_app.command("list")
def quarantine_list(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List what is avoided, where, and why; what other versions left is expired."""
    from torchport.cli.quarantine import show

    show(as_json=as_json)


@quarantine_app.command("add")
def quarantine_add(
    kernel: Annotated[str, typer.Argument(help="The kernel's identity, as `torchport port --json` gives it.")],
    config: Annotated[str, typer.Option(help="Block sizes: 'XBLOCK=1024 num_warps=1'.")],
    target: Annotated[str, typer.Option()] = "cpu",
    reason: Annotated[str, typer.Option(help="What was wrong.")] = "added by hand",
) -> None:
    """Avoid a kernel with these block sizes on a target until its compiler or driver changes."""
    from torchport.cli.quarantine import add

    add(target, kernel, config, reason)


@quarantine_app.command("clear")
def quarantine_clear(
    target: Annotated[str | None, typer.Option(help="Only what is avoided on this target.")] = None,
    expired: Annotated[bool, typer.Option("--expired", help="Only what other versions left.")] = False,
) -> None:
    """Forget what is avoided."""
    from torchport.cli.quarantine import clear

    clear(target, expired=expired)


def main() -> int:
    """Run the command line. An error a user can meet is one sentence; from TORCHPORT_DEBUG=2 on, a traceback."""
    try:
        app()
    except (TorchportError, OSError) as error:
        if _debug() >= 2:
            raise
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 1
    return 0


def _sentence(error: TorchportError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _debug() -> int:
    from torchport.config import config

    try:
        return config().debug
    except TorchportError:
        return 0
