"""What algebraic equivalence proves and refutes: kernels of the zoo with two block sizes, and mutants of kernels.

    python tools/bench_equivalence.py zoo [MODEL ...] [--seeds 1]
    python tools/bench_equivalence.py mutants [MODEL ...] [--count 200] [--seed 0]

``zoo``: each kernel of a small model's forward pass, with its largest block halved; a kernel that holds a row whole
has no block, and is compared with the one that loops over it. ``mutants``: faults put into kernels' TTIR, until
``--count`` of them change results in float64 by more than 1e-9: each of these must be refuted. Others are counted
beside them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from equivalence_bench.judging import Judged, chosen, judged
from equivalence_bench.kernels import CASES
from equivalence_bench.zoo import compared, kernels, recorded
from model_zoo import names

from torchport.errors import TorchportError
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.precision.equal import launch_of

_MODELS = ("gpt2", "llama", "bert", "vit", "dlrm", "recurrent")
_LARGEST = 1 << 21  # elements of a launch whose mutants are run


def zoo(models: list[str], seeds: int) -> None:
    print("| model | kernels | PROVEN | REFUTED | NOT PROVABLE | seconds |\n|---|---|---|---|---|---|")
    total: Counter[str] = Counter()
    for name in models or names():
        found = list(compared(name, seeds))
        verdicts = Counter(one.found.verdict for one in found)
        total += verdicts
        counts = [verdicts[verdict] for verdict in ("PROVEN", "REFUTED", "NOT PROVABLE")]
        seconds = sum(one.seconds for one in found)
        print("| " + " | ".join(map(str, [name, len(found), *counts, f"{seconds:.0f}"])) + " |", flush=True)
        for one in found:
            if one.found.verdict != "PROVEN" or one.found.reason:
                print(f"    {one.how} {one.function}: {one.found}", flush=True)
    print(f"{total['PROVEN']} of {sum(total.values())} kernels are PROVEN")


def mutants(models: list[str], count: int, seed: int) -> None:
    launches = [(name, launch_of(*case())) for name, (case, _) in CASES.items()]
    with tempfile.TemporaryDirectory() as folder:
        for name in models or _MODELS:
            run = recorded(name, Path(folder) / name)
            for launch in kernels(run):
                try:
                    replay, storages, _ = replay_of(run, launch)
                except TorchportError as error:
                    print(f"    {name} {launch.kernel}: {error}")
                    continue
                if sum(storage.numel() for storage in storages.values()) <= _LARGEST:
                    launches.append((f"{name} {launch.kernel}", AlgebraLaunch.of(replay, storages)))
        found: list[Judged] = []
        start = time.process_time()
        for name, launch, mutant in chosen(launches, seed):
            if (one := judged(name, launch, mutant)) is not None:
                found.append(one)
                if one.changed and one.found.verdict != "REFUTED":
                    why = f"{mutant.kind}: {mutant.line} {one.found.reason}"
                    print(f"    {one.found.verdict} {name}: {why}", flush=True)
            if sum(one.changed for one in found) == count:
                break
    print("| fault | mutants that change results | REFUTED | others | of them PROVEN |\n|---|---|---|---|---|")
    kinds = sorted({one.mutant.kind for one in found})
    for kind in [*kinds, "all"]:
        ours = [one for one in found if kind in (one.mutant.kind, "all")]
        changed, rest = [one for one in ours if one.changed], [one for one in ours if not one.changed]
        refuted = sum(one.found.verdict == "REFUTED" for one in changed)
        proven = sum(one.found.verdict == "PROVEN" for one in rest)
        print(f"| {kind} | {len(changed)} | {refuted} | {len(rest)} | {proven} |")
    print(f"{len(launches)} kernels, {time.process_time() - start:.0f} seconds of a core")
    for one in found:
        if not one.changed and one.found.verdict == "REFUTED":
            print(f"    refuted although float64 agrees: {one.name}: {one.mutant.kind}: {one.mutant.line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("zoo", "mutants"))
    parser.add_argument("models", nargs="*")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what == "zoo":
        zoo(given.models, given.seeds)
    else:
        mutants(given.models, given.count, given.seed)


if __name__ == "__main__":
    main()
