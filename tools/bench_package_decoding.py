"""Generates 32 tokens from a package of a small Llama with a static cache, and times them beside Inductor's C++.

    python3 tools/bench_package_decoding.py --width 256 --threads 1

A table in Markdown: CPU microseconds a token, the median of each round's tokens, the least of the rounds, which take
turns, and tokens a second of CPU time. The tokens of each way must be eager's. docs/packages.md deploys such a package.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_decoding import model
from transformers import LlamaForCausalLM, StaticCache

from torchport.packages import Example, Package, build, load

PROMPT, TOKENS, CACHE, WARM = 16, 32, 128, 2

Step = Callable[[torch.Tensor, Any], torch.Tensor]


class Greedy(torch.nn.Module):
    """Tokens and a cache, which it writes, to the next token."""

    def __init__(self, llama: LlamaForCausalLM) -> None:
        """``llama``: the model."""
        super().__init__()
        self.llama = llama

    def forward(self, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        """The token that follows: [1, 1]."""
        return self.llama(tokens, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)


def empty_cache(llama: LlamaForCausalLM) -> StaticCache:
    """A static cache with memory, for one sequence."""
    config, cache = llama.config, StaticCache(config=llama.config, max_cache_len=CACHE)
    width = config.hidden_size // config.num_attention_heads
    cache.early_initialization(1, config.num_key_value_heads, width, llama.dtype, "cpu")
    return cache


def package(greedy: Greedy, path: Path) -> Package:
    """One file with a program for a token and one for prompts of 2 to 64, on the same weights."""
    length = torch.export.Dim("length", min=2, max=64)
    prompt = Example((torch.ones(1, 8, dtype=torch.int64), empty_cache(greedy.llama)), {}, ({1: length}, None))
    one = torch.ones(1, 1, dtype=torch.int64), empty_cache(greedy.llama)
    return load(build(greedy, one, path, also=[prompt], targets=["cpu"]).path)


def generate(step: Step, cache: Any) -> tuple[list[int], list[float]]:
    """The tokens after a prompt, and the CPU seconds of each but the first."""
    token = step(torch.arange(PROMPT)[None], cache)
    tokens, spent = [int(token)], []
    for _ in range(TOKENS - 1):
        begun = time.thread_time() if torch.get_num_threads() == 1 else time.process_time()
        token = step(token, cache)
        ended = time.thread_time() if torch.get_num_threads() == 1 else time.process_time()
        spent.append(ended - begun)
        tokens.append(int(token))
    return tokens, spent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(asked.threads)
    greedy = Greedy(model(asked.width, torch.float32))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        steps: dict[str, Step] = {"eager": greedy, "package": package(greedy, Path(folder) / "it.tpz")}
        for backend in ("inductor", "torchport"):
            torch._dynamo.reset()
            steps[backend] = torch.compile(greedy, backend=backend)
            generate(steps[backend], empty_cache(greedy.llama))
        wanted, _ = generate(greedy, empty_cache(greedy.llama))
        least = dict.fromkeys(steps, float("inf"))
        for _ in range(asked.rounds):
            for name, step in steps.items():
                tokens, spent = generate(step, empty_cache(greedy.llama))
                if tokens != wanted:
                    raise SystemExit(f"{name} generates {tokens}, and eager {wanted}")
                least[name] = min(least[name], statistics.median(spent[WARM:]) * 1e6)
    print(f"| width {asked.width} | us a token | tokens/s | times Inductor's speed |")
    print("|---|---|---|---|")
    for name, value in least.items():
        print(f"| {name} | {value:.0f} | {1e6 / value:.0f} | {least['inductor'] / value:.2f} |")


if __name__ == "__main__":
    main()
