"""One model graph, one process: executed on every target that runs here, compiled for GPUs that are not here.

    python tools/every_target.py FOLDER [--model gpt2] [--html several.html]

The model (small, random weights) is recorded on cpu, opencl, webgpu and linalg, and as an H100 with TF32 would compute
it, into FOLDER/TARGET; its kernels are compiled for six GPU architectures; then all runs are put into one report, as
``torchport diff`` does with these folders. Targets that are not here are named and left out. Exit status as of
``torchport diff``, 1 if a kernel does not compile.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

import torchport
from torchport.cli.precision.diff_several import diff_several
from torchport.errors import TargetError
from torchport.evaluation.models import Built, build
from torchport.offline import capture, port
from torchport.plugin import backend_for
from torchport.target import Target

EXECUTED: Mapping[str, Mapping[str, str]] = {
    "cpu": {"target": "cpu"},
    "opencl": {"target": "opencl"},
    "webgpu": {"target": "webgpu"},
    "linalg": {"target": "linalg"},
    "h100-tf32": {"target": "cpu", "emulate": "h100-tf32"},
}
COMPILED = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx90a", "hip:gfx942", "hip:gfx1100")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="gpt2")
    parser.add_argument("--html", type=Path)
    chosen = parser.parse_args()
    built = build(chosen.model, "small")
    folders = [folder for name in EXECUTED if (folder := execute(built, name, chosen.folder / name)) is not None]
    compiled = compile_for_gpus(chosen.model, built)
    return compiled or diff_several(folders, "fp64", None, chosen.html, "fail", 10)


def execute(built: Built, name: str, folder: Path) -> Path | None:
    """Record one run. None if there is no such target here."""
    options = EXECUTED[name]
    target = Target.parse(options["target"])
    try:
        backend_for(target).driver(target)
    except TargetError as error:
        print(f"{name}: left out, {error}")
        return None
    torch._dynamo.reset()
    model = torch.compile(built.module, backend="torchport", options={**options, "fallback": "error"}, dynamic=False)
    with torch.no_grad():
        model(**built.inputs)
        with torchport.record(folder, "full"):  # nothing is compiled again
            model(**built.inputs)
    print(f"{name}: executed, recorded in {folder}")
    return folder


def compile_for_gpus(name: str, built: Built) -> int:
    """Compile the model's kernels for GPUs. 1 if one does not compile."""
    torch._dynamo.reset()
    with torch.no_grad():
        names = list(built.inputs)
        found = capture(lambda *values: built.module(**dict(zip(names, values, strict=True))), [*built.inputs.values()])
    report = port(name, found, [Target.parse(text) for text in COMPILED])
    for state in report.targets:
        artifacts = report.artifacts.get(state.target, ())
        count = sum(artifact.binary is not None for artifact in artifacts)
        print(f"{state.target}: {state.unavailable or f'{count} of {len(artifacts)} kernels compiled'}")
        for artifact in artifacts:
            if artifact.error:
                print(f"  {artifact.kernel}: {artifact.error}")
    return int(report.failed())


if __name__ == "__main__":
    raise SystemExit(main())
