"""Cost of PRESENCE beside plain DeepSpeed: the two engines take steps in turn in one process.

    deepspeed --num_accelerators 1 benchmarks/overhead.py [--precision bf16] [--stage 2] ...

Engines: ``plain``, DeepSpeed with the model's own loss, what a user has today; ``plain_chunked_loss``, DeepSpeed with
the chunked loss that PRESENCE uses, which is faster than the model's own and would otherwise hide a part of the cost of
scoring; ``presence``, strategy one_pass.

Prints the ratios of the median step times, with the quartiles of the paired ratios, and the peak memory of each engine,
measured in a process of its own. Absolute times on a shared machine mean little; a ratio of paired steps means more.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Literal

import deepspeed
import torch
from jsonargparse import auto_cli
from transformers import LlamaConfig, LlamaForCausalLM

import presence_ds
from presence_ds.influence import causal_lm_losses

Variant = Literal["plain", "plain_chunked_loss", "presence"]
VARIANTS: tuple[Variant, ...] = ("plain", "plain_chunked_loss", "presence")


class ChunkedLoss(torch.autograd.Function):
    """Mean of the per-sample losses that PRESENCE trains on, for ordinary autograd."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses, gradient = causal_lm_losses(logits, labels)
        ctx.save_for_backward(gradient)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(grad_outputs[0] / len(gradient)), None


def build(
    variant: Variant, config: LlamaConfig, batch_size: int, precision: str, stage: int, presence: dict[str, Any]
) -> Any:
    """An engine of ``variant`` on a fresh model, seeded alike."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    settings = {
        "train_micro_batch_size_per_gpu": batch_size,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": precision == "bf16"},
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 50_000_000},
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    if variant != "presence":
        return deepspeed.initialize(model=model, config=settings, optimizer=optimizer)[0]
    return presence_ds.initialize(model=model, config=settings, presence=presence, optimizer=optimizer)[0]


def timed_step(variant: Variant, engine: Any, ids: torch.Tensor) -> float:
    """Seconds of one training step on ``ids`` [B, T]."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    start = time.perf_counter()
    if variant == "plain":
        loss = engine(input_ids=ids, labels=ids).loss
    elif variant == "plain_chunked_loss":
        loss = ChunkedLoss.apply(engine(input_ids=ids).logits, ids)
    else:
        loss = engine(input_ids=ids, labels=ids)
    engine.backward(loss)
    engine.step()
    synchronize()
    return time.perf_counter() - start


def peak_memory_mib() -> float:
    """Peak memory of this process so far in MiB: of the GPU's allocator, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    # not getrusage: its maximum is inherited from the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def overhead(
    hidden_size: int = 512,
    layers: int = 8,
    vocabulary: int = 16384,
    sequence_length: int = 512,
    batch_size: int = 4,
    precision: Literal["float32", "bf16"] = "float32",
    stage: Literal[1, 2, 3] = 2,
    estimator: Literal["projected", "exact"] = "projected",
    projection_dim: int = 32,
    steps: int = 20,
    warmup: int = 3,
    memory_of: Variant | None = None,
) -> None:
    """Compare PRESENCE (strategy one_pass) with plain DeepSpeed on a Llama-type model.

    Args:
        hidden_size: Width of the model; the feed-forward width is 8/3 of it, rounded up to a multiple of 64.
        layers: Number of blocks.
        vocabulary: Number of tokens.
        sequence_length: Tokens per sample.
        batch_size: Samples per rank and step.
        precision: Of parameters and activations.
        stage: ZeRO stage.
        estimator: Of the self-influence.
        projection_dim: Side of the projected gradients.
        steps: Measured steps of each engine.
        warmup: Steps of each engine before them.
        memory_of: Take steps with this engine alone and print its peak memory (used by the script itself).
    """
    warnings.simplefilter("ignore")
    config = LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=-(-hidden_size * 8 // 3 // 64) * 64,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        vocab_size=vocabulary,
        max_position_embeddings=sequence_length,
        use_cache=False,
    )
    presence = {
        "estimator": estimator,
        "projection_dim": projection_dim,
        "schedule": {"kind": "constant", "tau_direct": 1.0},
    }
    arguments = (config, batch_size, precision, stage, presence)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else "cpu"
    batches = torch.randint(vocabulary, (steps + warmup, batch_size, sequence_length), device=device)
    if memory_of is not None:
        engine = build(memory_of, *arguments)
        for ids in batches[: warmup + 1]:
            timed_step(memory_of, engine, ids)
        print(json.dumps({"peak_memory_mib": peak_memory_mib()}))
        return

    engines = {variant: build(variant, *arguments) for variant in VARIANTS}
    times: dict[Variant, list[float]] = {variant: [] for variant in VARIANTS}
    for step, ids in enumerate(batches):
        # the order turns, so that none always finds the caches warm
        for variant in VARIANTS if step % 2 == 0 else reversed(VARIANTS):
            seconds = timed_step(variant, engines[variant], ids)
            if step >= warmup:
                times[variant].append(seconds)
    if deepspeed.comm.get_rank() != 0:
        return
    medians = {variant: statistics.median(values) for variant, values in times.items()}
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in engines["plain"].module.parameters())
    result = {
        "parameters": parameters,
        "sequence_length": sequence_length,
        "batch_size": batch_size,
        "precision": precision,
        "zero_stage": stage,
        "estimator": estimator,
        "ranks": deepspeed.comm.get_world_size(),
        "median_step_s": {variant: round(value, 4) for variant, value in medians.items()},
        "presence_to": {other: compare(times["presence"], times[other]) for other in VARIANTS[:2]},
    }
    if deepspeed.comm.get_world_size() == 1:
        result["peak_memory_mib"] = {variant: round(measure_memory(variant)) for variant in VARIANTS}
    print(json.dumps(result, indent=2))


def compare(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Ratio of medians and quartiles of the paired ratios of two lists of step times."""
    low, _, high = statistics.quantiles((a / b for a, b in zip(ours, theirs, strict=True)), n=4)
    ratio = statistics.median(ours) / statistics.median(theirs)
    return {"ratio_of_medians": round(ratio, 3), "paired_quartiles": [round(low, 3), round(high, 3)]}


def measure_memory(variant: Variant) -> float:
    """Peak memory in MiB of a process that trains ``variant`` alone."""
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    environment |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29871",
    }
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")]
    command = [sys.executable, __file__, *arguments, "--memory_of", variant]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.strip().splitlines()[-1])["peak_memory_mib"])


if __name__ == "__main__":
    sys.argv = [sys.argv[0], *(argument for argument in sys.argv[1:] if not argument.startswith("--local_rank"))]
    auto_cli(overhead)
