"""Times transformers' `generate` with a static cache: small models, eager, with Inductor and with torchport.

    python3 tools/bench_generate.py --models t5 gemma2 --dtype bfloat16 --batch 4 --threads 2

One line a model, in Markdown: ms of a call of the model for one token (CPU time of the calling thread with one thread,
else wall time), the median of a round's tokens, the least of the rounds, which take turns. Sequences are padded to the
left. The tokens of each way must be eager's, in float32. Random weights; sizes in `MODELS`.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

WIDTH, WORDS, PROMPT, TOKENS, WARM, LAYERS = 384, 4000, 13, 48, 4, 3
WINDOW = 32
"""Tokens of sliding windows: fewer than are generated, so that windows become full."""

_PLAIN = dict(
    hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=6,
    num_key_value_heads=3, vocab_size=WORDS,
)  # fmt: skip
_FROM_TO = dict(
    d_model=WIDTH, encoder_layers=2, decoder_layers=LAYERS, encoder_attention_heads=6, decoder_attention_heads=6,
    encoder_ffn_dim=4 * WIDTH, decoder_ffn_dim=4 * WIDTH, vocab_size=WORDS,
)  # fmt: skip
MODELS: dict[str, Callable[[], Any]] = {
    "t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(
            d_model=WIDTH,
            d_ff=4 * WIDTH,
            num_layers=LAYERS,
            num_heads=6,
            vocab_size=WORDS,
            tie_word_embeddings=False,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
        )
    ),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**_FROM_TO)),
    "whisper": lambda: hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(
            **_FROM_TO,
            max_source_positions=150,
            max_target_positions=128,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
            suppress_tokens=[],
            begin_suppress_tokens=[],
        )
    ),
    "gemma2": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**_PLAIN, head_dim=64, sliding_window=WINDOW, query_pre_attn_scalar=64)
    ),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_PLAIN, head_dim=64, sliding_window=WINDOW)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**_PLAIN, sliding_window=WINDOW)),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_PLAIN)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**_PLAIN, head_dim=64)),
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**_PLAIN, head_dim=64, moe_intermediate_size=WIDTH, num_experts=8, num_experts_per_tok=2)
    ),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=6, vocab_size=WORDS, n_positions=256)
    ),
    "mamba": lambda: hf.MambaForCausalLM(hf.MambaConfig(hidden_size=WIDTH, num_hidden_layers=LAYERS, vocab_size=WORDS)),
}
BACKENDS = {"eager": None, "inductor": {}, "torchport": {"fallback": "error"}}


def model(name: str, dtype: torch.dtype) -> Any:
    """One of ``MODELS``, whose choices of tokens are clear, and which never ends a text."""
    torch.manual_seed(0)
    made = MODELS[name]().eval()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(2.5)
    made.generation_config.update(eos_token_id=None, forced_eos_token_id=None, pad_token_id=0)
    return made.to(dtype)


def inputs(name: str, dtype: torch.dtype, batch: int) -> dict[str, torch.Tensor]:
    """Sequences of ``PROMPT`` tokens, each after some that are masked; sound for Whisper."""
    numbers = torch.Generator().manual_seed(1)
    if name == "whisper":
        return {"input_features": torch.randn(batch, 80, 300, generator=numbers).to(dtype)}
    tokens = torch.randint(3, WORDS, (batch, PROMPT), generator=numbers)
    mask = torch.arange(PROMPT)[None] >= 3 * torch.arange(batch)[:, None]
    return {"input_ids": tokens * mask, "attention_mask": mask.long()}


class Way:
    """A model that generates with one backend; ``seconds`` of each call for one token of the last text."""

    def __init__(self, made: Any, backend: str) -> None:
        options = BACKENDS[backend]
        self._made, self._config = made, hf.CompileConfig(backend=backend, fullgraph=False, mode=None)
        self._config._compile_all_devices = True
        compiled = options is not None
        self._forward = torch.compile(made.__call__, backend=backend, options=options) if compiled else made.__call__
        self._clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        self.seconds: list[float] = []

    def _timed(self, *args: Any, **kwargs: Any) -> Any:
        started = self._clock()
        found = self._forward(*args, **kwargs)
        self.seconds.append(self._clock() - started)
        return found

    def __call__(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        """The tokens: ``TOKENS`` more than are given."""
        self._made.get_compiled_call = lambda config: self._timed
        self.seconds = []
        found: torch.Tensor = self._made.generate(
            **given,
            do_sample=False,
            max_new_tokens=TOKENS,
            cache_implementation="static",
            compile_config=self._config,
        )
        return found


def line(name: str, asked: argparse.Namespace) -> str:
    """A model's row of the table."""
    torch._dynamo.reset()
    dtype = getattr(torch, asked.dtype)
    made, given = model(name, dtype), inputs(name, dtype, asked.batch)
    ways = {backend: Way(made, backend) for backend in asked.backends}
    wanted = Way(made, "eager")(given)
    same, least = {}, dict.fromkeys(ways, float("inf"))
    for backend, way in ways.items():
        same[backend] = torch.equal(way(given), wanted) and torch.equal(way(given), wanted)
    if dtype == torch.float32 and not all(same.values()):
        raise SystemExit(f"{name}: {', '.join(way for way in same if not same[way])} generates other tokens than eager")
    for _ in range(asked.rounds):
        for backend, way in ways.items():
            way(given)
            least[backend] = min(least[backend], statistics.median(way.seconds[WARM:]) * 1e3)
    ours = least["torchport"]
    ratios = [f"{least[other] / ours:.2f}" if other in least else "" for other in ("eager", "inductor")]
    times = [f"{least[backend]:.2f}" if backend in least else "" for backend in BACKENDS]
    tokens = "same" if all(same.values()) else "differ: " + ", ".join(way for way in same if not same[way])
    cells = [name, asked.dtype, str(asked.batch), str(asked.threads), *times, *ratios, tokens]
    return f"| {' | '.join(cells)} |"


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=list(BACKENDS))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    hf.logging.set_verbosity_error()
    torch.set_num_threads(asked.threads)
    print("| model | type | batch | threads | eager | Inductor C++ | torchport | over eager | over Inductor | tokens |")
    print(f"|{'---|' * 10}")
    for name in asked.models:
        print(line(name, asked), flush=True)


if __name__ == "__main__":
    main()
