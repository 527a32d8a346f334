"""First calls of two-layer models of transformers that the model zoo does not have, with empty caches.

    python tools/bench_first_calls.py --models phi,bart

Each call is in a process of its own; `floor` (Dynamo and AOTAutograd alone), torchport and Inductor take turns. Prints
CPU seconds of all processes, wall seconds, and both ratios of torchport to Inductor less the floor.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from model_bench.backends import FLOOR, INDUCTOR, TORCHPORT, cache_environment, compiled
from model_bench.process import run_job

WORDS = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512}
PAIR = {
    "d_model": 256, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512,
}  # fmt: skip
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
STATES = {"hidden_size": 256, "num_hidden_layers": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "phi": ("Phi", WORDS),
    "gemma2": ("Gemma2", WORDS | {"num_key_value_heads": 2, "head_dim": 64}),
    "qwen3": ("Qwen3", WORDS | {"num_key_value_heads": 2, "head_dim": 64}),
    "mixtral": ("Mixtral", WORDS | {"num_key_value_heads": 2, "num_local_experts": 4}),
    "mamba": ("Mamba", STATES),
    "rwkv": ("Rwkv", STATES | {"attention_hidden_size": 256}),
    "bart": ("Bart", PAIR),
    "whisper": ("Whisper", PAIR | SPECIAL | {"num_mel_bins": 80, "max_source_positions": 100}),
    "mobilenet": ("MobileNetV2", {"image_size": 96, "depth_multiplier": 0.5}),
}
"""Classes of transformers, and what is given to their configurations."""
TOKENS = {"mamba": 32, "rwkv": 16}


def inputs(name: str) -> dict[str, Any]:
    """What the model is called with."""
    if name == "mobilenet":
        return {"pixel_values": torch.rand(1, 3, 96, 96)}
    cache = {"use_cache": False}
    if name == "whisper":
        return {"input_features": torch.rand(1, 80, 200), "decoder_input_ids": torch.randint(0, 1000, (1, 16))} | cache
    return {"input_ids": torch.randint(0, 1000, (2, TOKENS.get(name, 64)))} | cache


def cpu_seconds() -> float:
    """Of this process, and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def job(case: dict[str, Any]) -> dict[str, float]:
    """The first call in this process."""
    import transformers

    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    kind, options = MODELS[case["model"]]
    sizes = {} if case["model"] == "mobilenet" else {"vocab_size": 1000}
    settings = getattr(transformers, f"{kind}Config")(**options, **sizes)
    model, given = getattr(transformers, f"{kind}Model")(settings).eval(), inputs(case["model"])
    begun, cpu = time.perf_counter(), cpu_seconds()
    call = compiled(case["backend"], model, "float32", case["threads"])
    with torch.no_grad():
        call(**given)
    return {"wall_s": time.perf_counter() - begun, "cpu_s": cpu_seconds() - cpu}


def main() -> None:
    """Print one line for each model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for model in options.models.split(","):
        found = {}
        for backend in (FLOOR, TORCHPORT, INDUCTOR):
            with tempfile.TemporaryDirectory() as folder:
                case = {"model": model, "backend": backend, "threads": options.threads}
                found[backend] = run_job("bench_first_calls", case, cache_environment(Path(folder)), 900)
        text = []
        for clock in ("cpu_s", "wall_s"):
            floor, ours, inductors = (found[backend][clock] for backend in (FLOOR, TORCHPORT, INDUCTOR))
            ratio = (ours - floor) / (inductors - floor)
            text.append(f"{clock} {floor:.2f} {ours:.2f} / {inductors:.2f}, less the floor {ratio:.2f}")
        print(f"{model}: {'; '.join(text)}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("{"):
        print(json.dumps(job(json.loads(sys.argv[1]))))
    else:
        main()
