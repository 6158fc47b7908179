"""Tensors that a real DeepSpeed engine holds, counted on every rank of a pool."""

import gc
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import presence_ds
from presence_ds.trainer.building.optimizer import OptimizerConfig, build_optimizer
from presence_ds.trainer.estimate.states import model_states

BUCKET = 12_000  # elements: no less than the largest parameter, which DeepSpeed otherwise copies once more
RANKS = 2


@dataclass(frozen=True)
class Case:
    stage: int
    precision: str = "bf16"
    optimizer: str = "adamw"
    zero: dict[str, Any] = field(default_factory=dict)


def tiny_llama() -> LlamaForCausalLM:
    """Many small layers, so that no single tensor matters."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=160,
            hidden_size=64,
            intermediate_size=172,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )


def tensor_bytes() -> int:
    """Bytes of the storages of all tensors of this process."""
    gc.collect()
    storages: dict[int, int] = {}
    for found in gc.get_objects():
        if isinstance(found, torch.Tensor) and not isinstance(found, torch._subclasses.FakeTensor):
            for tensor in (found, found.grad if found.is_leaf else None):
                if tensor is not None and tensor.device.type != "meta":
                    storage = tensor.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def measure(case: Case) -> tuple[float, float]:
    """Most bytes at the end of a backward of the second step, beyond those before, and bytes as estimated."""
    model = tiny_llama()
    sizes = [parameter.numel() for parameter in model.parameters()]
    before = tensor_bytes() - 4 * sum(sizes)
    section = {"reduce_bucket_size": BUCKET, "overlap_comm": False, **case.zero}
    optimizer = OptimizerConfig(kind=case.optimizer)
    offloaded = "offload_optimizer" in case.zero
    engine, *_ = presence_ds.initialize(
        model=model,
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 2,
            "zero_optimization": {"stage": case.stage, **section},
            "bf16": {"enabled": case.precision == "bf16"},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
        optimizer=build_optimizer(model, optimizer, offloaded_to_cpu=offloaded),
        presence={"preset": "paper", "signal": "loss", "schedule": {"kind": "constant"}},
    )
    del model
    ids = torch.arange(9)[None]
    found = 0
    for micro_step in range(4):
        engine.backward(engine(input_ids=ids, labels=ids))
        if micro_step >= 2:  # the moments are there
            found = max(found, tensor_bytes() - before)
        engine.step()
    engine.destroy()
    states = model_states(
        sizes,
        section,
        case.stage,
        ranks=RANKS,
        bytes_per_element=2 if case.precision == "bf16" else 4,
        moments=optimizer.moments(),
        accumulation_steps=2,
    )
    return found, states.device - states.gathered + states.host
