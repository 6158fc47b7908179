"""What is varied between the settings of the overhead benchmark, and the plain model and DeepSpeed config of one."""

import os
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Setting:
    """A Llama-type model and how it is trained.

    Args:
        hidden_size: Width of the model; the feed-forward width is 8/3 of it, rounded up to a multiple of 64.
        layers: Number of blocks.
        vocabulary: Number of tokens.
        sequence_length: Tokens per sample.
        batch_size: Samples per rank and step.
        precision: Of parameters and activations.
        stage: ZeRO stage.
        ranks: Processes, each on a GPU of its own, or on an equal share of this machine's cores.
        threads: CPU threads of each rank. null: its share of the cores.
        keep_freed: Have glibc keep freed memory, as a GPU's allocator does. By default it gives large tensors back to
            the kernel, and the page faults of the next ones hide a part of every variant's differences on a CPU.
        offload: Whether the optimizer and its state are on the CPU. It is torch's AdamW there too, which needs no
            compiler as DeepSpeed's own does.
        projection_dim: Side k of the projected gradients.
        steps: Measured steps of each variant.
        warmup: Steps of each variant before them.
    """

    hidden_size: int = 512
    layers: int = 8
    vocabulary: int = 16384
    sequence_length: int = 512
    batch_size: int = 4
    precision: Literal["float32", "bf16"] = "float32"
    stage: Literal[1, 2, 3] = 2
    ranks: int = 1
    threads: int | None = None
    keep_freed: bool = False
    offload: bool = False
    projection_dim: int = 32
    steps: int = 10
    warmup: int = 2

    def model(self) -> LlamaForCausalLM:
        """The model, seeded, so that every variant and rank begins alike; made on the GPU, where there is one."""
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            return LlamaForCausalLM(LlamaConfig(**self.llama()))

    def parameters(self) -> int:
        """How many the model has."""
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(**self.llama()))
        return sum(parameter.numel() for parameter in model.parameters())

    def llama(self) -> dict[str, Any]:
        """Fields of the model's configuration."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": -(-self.hidden_size * 8 // 3 // 64) * 64,
            "num_hidden_layers": self.layers,
            "num_attention_heads": max(1, self.hidden_size // 64),
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.sequence_length,
            "use_cache": False,
        }

    def deepspeed(self, model: torch.nn.Module) -> dict[str, Any]:
        """What `deepspeed.initialize` takes."""
        zero: dict[str, Any] = {"stage": self.stage, "reduce_bucket_size": 50_000_000}
        if self.offload:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        return {
            "model": model,
            # on a CPU one pass over the state in place of a dozen
            "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True if self.offload else None),
            "config": {
                "train_micro_batch_size_per_gpu": self.batch_size,
                "gradient_clipping": 1.0,
                "bf16": {"enabled": self.precision == "bf16"},
                "zero_optimization": zero,
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
            },
        }

    def environment(self) -> dict[str, str]:
        """Variables of the processes that measure."""
        keep = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 26)}
        return {"OMP_NUM_THREADS": str(self.cpu_threads())} | (keep if self.keep_freed else {})

    def cpu_threads(self) -> int:
        """CPU threads of each rank."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.ranks)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
