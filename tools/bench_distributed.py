"""From `torchrun` to the end of the first training step: several ranks against one, cold and warm.

    python tools/bench_distributed.py --ranks 1,4 --backends torchport,inductor

Each rank trains a decoder with DistributedDataParallel. `cold` begins with empty caches that the ranks share, `own`
with empty caches of each rank, `warm` with the caches that `cold` left. Printed for each: the wall time until the last
rank has done its first step, the CPU seconds of all processes, both also over those of one rank, how many kernels all
ranks compiled, and of how many kinds. `floor` is the CPU time over the machine's processors: no run can be shorter.
`a rank` is the CPU time without the launcher's. Rounds are interleaved, and medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from model_bench.backends import cache_environment

STATES = ("cold", "warm", "own")


def work(out: Path, backend: str, layers: int, width: int) -> None:
    """A rank: one step of training."""
    import torch
    import torch.distributed as dist
    from torch import nn

    rank = int(os.environ["RANK"])
    if os.environ.get("BENCH_OWN_CACHES"):
        os.environ.update(cache_environment(Path(os.environ["BENCH_OWN_CACHES"], str(rank))))
    dist.init_process_group("gloo")
    torch.manual_seed(0)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (one.unflatten(-1, (4, -1)).transpose(1, 2) for one in self.qkv(self.before(x)).chunk(3, -1))
            attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(attended.transpose(1, 2).flatten(2))
            return x + self.down(nn.functional.gelu(self.up(self.between(x))))

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Layer() for _ in range(layers))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    model = Decoder()
    wrapped: Any = nn.parallel.DistributedDataParallel(model)
    if backend != "eager":
        wrapped = torch.compile(wrapped, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    begin = time.time()
    wrapped(torch.randn(4, 32, width)).square().mean().backward()
    optimizer.step()
    end = time.time()
    kernels: list[str] = []
    if backend == "torchport":
        from torchport.runtime import events

        kernels = [e.name for e in events.history() if isinstance(e, events.Kernel) and not e.cached]
    (out / f"{rank}.json").write_text(
        json.dumps({"begin": begin, "end": end, "kernels": kernels, "cpu": time.process_time()})
    )
    dist.destroy_process_group()


def job(ranks: int, backend: str, state: str, caches: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Start a job and wait for it."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **cache_environment(caches), "OMP_NUM_THREADS": str(arguments.threads)}
        if state == "own":
            environment["BENCH_OWN_CACHES"] = str(caches)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", __file__]
        command += ["--work", folder, "--backends", backend]
        command += ["--layers", str(arguments.layers), "--width", str(arguments.width)]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-4000:])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
    compiled = Counter(name for one in found for name in one["kernels"])
    return {
        "wall": max(one["end"] for one in found) - start,
        "step": max(one["end"] - one["begin"] for one in found),
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "each": sum(one["cpu"] for one in found) / ranks,
        "compiled": sum(compiled.values()),
        "kinds": len(compiled),
    }


def _medians(rounds: list[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="1,4", help="numbers of ranks; the first is what the others are compared to")
    parser.add_argument("--backends", default="torchport", help="torchport, inductor, eager")
    parser.add_argument("--states", default="cold,warm", help=", ".join(STATES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of each rank; torchrun's own choice is 1")
    parser.add_argument("--out", type=Path, help="write all rounds as JSON")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.backends, arguments.layers, arguments.width)
        return
    ranks = [int(one) for one in arguments.ranks.split(",")]
    rounds: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for _ in range(arguments.rounds):
        for backend in arguments.backends.split(","):
            for count in ranks:
                with tempfile.TemporaryDirectory() as caches:
                    for state in sorted(arguments.states.split(","), key=STATES.index):
                        place = Path(caches, "own" if state == "own" else "shared")
                        found = job(count, backend, state, place, arguments)
                        rounds.setdefault((backend, state, count), []).append(found)
    processors = len(os.sched_getaffinity(0))
    print("| backend | caches | ranks | wall s | over one | CPU s | a rank | over one | floor s | compiled | kinds |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for (backend, state, count), found in rounds.items():
        now, one = _medians(found), _medians(rounds[backend, state, ranks[0]])
        print(
            f"| {backend} | {state} | {count} | {now['wall']:.1f} | {now['wall'] / one['wall']:.2f} | {now['cpu']:.1f} "
            f"| {now['each']:.1f} | {now['each'] / one['each']:.2f} | {now['cpu'] / processors:.1f} "
            f"| {now['compiled']:.0f} | {now['kinds']:.0f} |"
        )
    if arguments.out:
        arguments.out.write_text(json.dumps([[*key, found] for key, found in rounds.items()], indent=1))


if __name__ == "__main__":
    main()
