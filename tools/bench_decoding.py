"""Times decoding: a token of a small Llama with a static cache, eager, with Inductor and with torchport.

    python3 tools/bench_decoding.py --width 512 --dtype bfloat16 --batch 4

One line for each way to run, in Markdown: CPU microseconds a token, the median of each round's tokens, the least of the
rounds, which take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

PROMPT, TOKENS, CACHE, WARM = 16, 48, 128, 4

WAYS: dict[str, dict[str, Any]] = {
    "inductor": {"backend": "inductor"},
    "torchport, no tape": {"backend": "torchport", "options": {"tape": "off"}},
    "torchport": {"backend": "torchport", "options": {"tape": "always"}},
}


def model(width: int, dtype: torch.dtype) -> LlamaForCausalLM:
    """Four layers; heads of 64 (of 32 below a width of 128)."""
    torch.manual_seed(0)
    heads = width // 64 if width >= 128 else width // 32
    config = LlamaConfig(
        hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=4, num_attention_heads=heads,
        num_key_value_heads=heads, vocab_size=16 * width, max_position_embeddings=512,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().to(dtype)


def decode(llama: LlamaForCausalLM, forward: Callable[..., Any], batch: int) -> list[float]:
    """CPU seconds of each token."""
    cache = StaticCache(config=llama.config, max_cache_len=CACHE)
    prompt = torch.arange(batch * PROMPT).reshape(batch, PROMPT) % llama.config.vocab_size
    out = llama(prompt, past_key_values=cache, cache_position=torch.arange(PROMPT), use_cache=True)
    spent = []
    for at in range(PROMPT, PROMPT + TOKENS):
        token, place = out.logits[:, -1:].argmax(-1), torch.tensor([at])
        begun = time.thread_time()
        out = forward(
            token, past_key_values=cache, cache_position=place, position_ids=place.expand(batch, 1), use_cache=True
        )
        spent.append(time.thread_time() - begun)
    return spent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(asked.threads)
    llama = model(asked.width, getattr(torch, asked.dtype))
    least = {"eager": float("inf"), **dict.fromkeys(WAYS, float("inf"))}
    with torch.no_grad():
        forwards = {"eager": llama.forward}
        for name, way in WAYS.items():
            torch._dynamo.reset()
            forwards[name] = torch.compile(llama.forward, dynamic=False, **way)
            decode(llama, forwards[name], asked.batch)
        for _ in range(asked.rounds):
            for name, forward in forwards.items():
                spent = decode(llama, forward, asked.batch)[WARM:]
                least[name] = min(least[name], statistics.median(spent) * 1e6)
    print(f"| width {asked.width}, {asked.dtype}, batch {asked.batch} | us a token | times inductor's speed |")
    print("|---|---|---|")
    for name, value in least.items():
        print(f"| {name} | {value:.0f} | {least['inductor'] / value:.2f} |")


if __name__ == "__main__":
    main()
