"""The commands on the installation, on models and on targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchport.cli.model import Model
from torchport.errors import OptionError

__all__ = ["commands", "device_commands", "ops_commands"]

commands = typer.Typer()
ops_commands = typer.Typer(help="The operator library.", no_args_is_help=True)
device_commands = typer.Typer(help="The torch device.", no_args_is_help=True)

_TARGETS = Annotated[str, typer.Option(help="Comma separated: cpu, cuda:90, hip:gfx942 ...")]


@commands.command()
def doctor(
    imports: Annotated[bool, typer.Option("--imports", help="Also import every package, which takes seconds.")] = False,
) -> None:
    """Check the installation; for each missing part, print the command that fixes it (exit status 1 if any is)."""
    from torchport.cli.doctor import doctor

    raise typer.Exit(doctor(imports=imports))


@commands.command()
def targets(
    all_: Annotated[
        bool, typer.Option("--all", help="Also compile-only targets one by one, and capabilities.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: devices, states, capabilities.")] = False,
) -> None:
    """List the installed backends and their devices, and what is missing to use them."""
    from torchport.cli.targets import targets

    targets(all_=all_, as_json=as_json)


@commands.command()
def demo(
    layers: Annotated[int, typer.Option(help="Transformer layers.", min=1)] = 4,
    hidden: Annotated[int, typer.Option(help="Hidden size, a multiple of 64.", min=64)] = 256,
    batch: Annotated[int, typer.Option(help="Batch size.", min=1)] = 2,
    sequence: Annotated[int, typer.Option(help="Sequence length.", min=2)] = 128,
    runs: Annotated[int, typer.Option(help="Timed runs of eager and compiled, alternating.", min=1)] = 30,
) -> None:
    """Compile a transformer with random weights; report compile time, kernels, speedup over eager, error to float64."""
    from torchport.cli.demo import demo

    raise typer.Exit(demo(layers=layers, hidden=hidden, batch=batch, sequence=sequence, runs=runs))


@commands.command()
def opt(
    file: Annotated[str, typer.Argument(help="TTIR or MLIR file; - reads standard input.")] = "-",
    passes: Annotated[
        str | None,
        typer.Option("-p", "--passes", help="name1,name2{option=value}; default: the target's pipeline."),
    ] = None,
    after: Annotated[str | None, typer.Option(help="Start after this pass, whose output is FILE.")] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this pass.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to this file, not to standard output.")
    ] = None,
    target: Annotated[str, typer.Option(help="The target whose pipeline is run.")] = "cpu",
    list_: Annotated[bool, typer.Option("--list", help="List the passes and the target's pipeline.")] = False,
    verify_only: Annotated[bool, typer.Option(help="Only import and verify.")] = False,
    print_after_all: Annotated[bool, typer.Option(help="Print the IR after each pass to standard error.")] = False,
) -> None:
    """Run passes on a kernel's IR and print the result; takes the files that TORCHPORT_DEBUG=4 writes."""
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


@commands.command()
def profile(
    model: Model,
    backend: Annotated[
        str, typer.Option(help="Measure these as well, comma separated: inductor, eager-floor (compiles nothing).")
    ] = "",
    warm: Annotated[
        bool, typer.Option("--warm/--cold", help="A new process over filled caches; default: caches are empty.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also draw a timeline into this file, .svg or .html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where the time of a model's first call goes. Caches are private; yours are neither used nor changed."""
    from torchport.cli.profile.command import profile

    profile(model, backend, output, warm=warm, as_json=as_json)


@commands.command()
def port(
    model: Model,
    targets: _TARGETS = "cpu,cuda:90,hip:gfx942",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Also write an HTML page to this file.")] = None,
    strict: Annotated[bool, typer.Option(help="Exit status 1 also if a kernel exceeds a limit of a target.")] = False,
) -> None:
    """Compile a model's kernels for targets without their hardware; show which compile and what they use.

    Exit status 1 if a kernel does not compile or a target is not available.
    """
    from torchport.cli.port import port

    raise typer.Exit(port(model, targets, json_file, html_file, strict=strict))


@commands.command()
def build(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")],
    targets: _TARGETS = "cpu,cuda:90,hip:gfx942",
    web: Annotated[
        bool, typer.Option("--web", help="With --targets webgpu: write a page that runs the model in a browser.")
    ] = False,
    precision: Annotated[
        str | None,
        typer.Option(help="float64, float32, or a file of torchport fix: as the option makes kernels."),
    ] = None,
) -> None:
    """Compile a model's kernels for targets without their hardware; write the machine code and a manifest."""
    if web:
        from torchport.cli.page import page

        if precision is not None:
            raise OptionError("--precision is not for --web: browsers have no float64")
        page(model, targets, output)
        return
    from torchport.cli.port import build

    raise typer.Exit(build(model, targets, output, precision))


@commands.command()
def package(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write, such as model.tpz.")],
    targets: Annotated[
        str,
        typer.Option(
            "--targets",
            "--target",
            help="Comma separated: levels of the CPU (cpu:x86_64:avx2 ...), opencl; default: all levels.",
        ),
    ] = "",
    dynamic: Annotated[
        list[str] | None,
        typer.Option(help="A size that may change: INPUT:DIMENSION=NAME[:LOWEST[:HIGHEST]]; may be given again."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="inside, or the name of a file beside the package (safetensors).")
    ] = "inside",
) -> None:
    """Compile a model into one file that torchport.load runs without a compiler."""
    from torchport.cli.package import package

    package(model, output, targets, dynamic or (), weights)


@commands.command()
def conformance(
    target: Annotated[str, typer.Option(help="The target to check: cpu, opencl:0 ...")] = "cpu",
    level: Annotated[str, typer.Option(help="quick (minutes) or full (everything).")] = "quick",
    only: Annotated[list[str] | None, typer.Option(help="Run only the cases whose id is or matches this.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Write the certificate to this file (JSON), and a report in Markdown next to it."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds after which a case has failed.", min=1)] = 120,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard results of an interrupted run.")] = False,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Quarantine the kernel of each failed graph that has only one.")
    ] = False,
    bf16_products: Annotated[
        str, typer.Option(help="The option that everything is compiled with: auto, exact or pairs.")
    ] = "auto",
    list_: Annotated[bool, typer.Option("--list", help="List the cases and stop.")] = False,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign the certificate with the private key in this file.")
    ] = None,
    verify: Annotated[Path | None, typer.Option(help="Check a certificate's hash and signature, and stop.")] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="With --verify: one of the public keys in this file must have signed it.")
    ] = None,
) -> None:
    """Test whether a target computes correctly, and write a certificate (exit status 1 if a case fails).

    An interrupted run continues where it stopped.
    """
    from torchport.cli import conformance as command
    from torchport.cli.signatures import refuse_together

    refuse_together(sign, verify, public_key, of="certificate")
    if verify is not None:
        raise typer.Exit(command.verify(verify, public_key))
    if sign is not None and output is None and not list_:
        raise typer.BadParameter("--sign signs the file of -o, which is missing")
    if list_:
        command.list_cases(level, only or ())
        return
    status = command.conformance(
        target,
        level,
        only or (),
        output,
        jobs=jobs,
        timeout=timeout,
        fresh=fresh,
        quarantine=quarantine,
        key=sign,
        bf16_products=bf16_products,
    )
    raise typer.Exit(status)


@ops_commands.command("list")
def list_operators(
    target: Annotated[str, typer.Option(help="Show the dtypes that this target has.")] = "",
    certificate: Annotated[
        Path | None, typer.Option(help="Show each operator's grade in this file of torchport conformance.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of docs/operators.md.")] = False,
) -> None:
    """List the operators of torchport.ops: schemas, dtypes, gradients, where their kernels come from."""
    from torchport.cli.ops import list_operators

    list_operators(target, certificate, markdown=markdown)


@ops_commands.command("build")
def build_operators(
    target: Annotated[str, typer.Option(help="The target to build for: cpu, opencl ...; it must run here.")] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="Comma separated: types that models compute in; float32, bfloat16, float16.")
    ] = "float32",
    only: Annotated[list[str] | None, typer.Option(help="Only operators whose name is or matches this.")] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds after which a call has failed.", min=1)] = 600,
    list_: Annotated[bool, typer.Option("--list", help="List operators and how many calls, and stop.")] = False,
) -> None:
    """Compile the kernels of operators ahead of time, into the cache: no process compiles them again.

    Those of torchport.ops, and on a torch device those of the calls that models make. Exit status 1 if one fails. A
    build that was stopped goes on where it was.
    """
    from torchport.cli import ops_build as command

    if list_:
        command.list_names(target, dtype, only or ())
        return
    raise typer.Exit(command.build_operators(target, dtype, only or (), jobs=jobs, timeout=timeout))


@device_commands.command("build")
def build_device() -> None:
    """Compile the C++ part of the torch device for the installed PyTorch; needs a C++ compiler, and seconds.

    With it: gradients on torchport:1 and above, torch.Generator(device="torchport"), torch.accelerator.synchronize()
    and memory figures, streams and events that wait. It is loaded from then on; build it again after an
    update of PyTorch or torchport.
    """
    from torchport.cli.device import build_device

    build_device()
