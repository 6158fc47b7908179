"""The same steps with sharded and with whole parameters, on every rank of a pool."""

from collections.abc import Callable
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn
from torch.optim import Optimizer

from presence_ds.trainer.building.optimizer import OptimizerConfig, build_optimizer

STEPS, SAMPLES, WIDTH = 4, 6, 12


def small_model() -> nn.Module:
    """Matrices and vectors of sizes that do not divide by two."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 15), nn.Tanh(), nn.LayerNorm(15), nn.Linear(15, 7, bias=False))


def loss_of(model: Any, inputs: Tensor) -> Tensor:
    return (model(inputs) - 1.0).square().mean()


def configured(config: OptimizerConfig) -> Callable[[nn.Module], Optimizer]:
    return lambda model: build_optimizer(model, config, offloaded_to_cpu=False)


def torchs_adafactor(model: nn.Module) -> Optimizer:
    return torch.optim.Adafactor(model.parameters(), lr=0.05)


def difference(config: OptimizerConfig | None, stage: int) -> tuple[float, float]:
    """Largest difference after some steps between parameters under ZeRO and whole ones, and how far those moved.

    ``config`` None is Adafactor, which `build_optimizer` refuses.
    """
    make = torchs_adafactor if config is None else configured(config)
    whole, sharded = small_model(), small_model()
    optimizer = make(whole)
    inputs = torch.randn(STEPS, dist.get_world_size(), SAMPLES, WIDTH, generator=torch.Generator().manual_seed(1))
    for step in inputs:
        optimizer.zero_grad()
        loss_of(whole, step.flatten(0, 1)).backward()
        optimizer.step()
    engine, *_ = deepspeed.initialize(
        model=sharded,
        config={
            "train_micro_batch_size_per_gpu": SAMPLES,
            "gradient_clipping": 0.0,
            "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
        optimizer=make(sharded),
    )
    for step in inputs:
        engine.backward(loss_of(engine, step[dist.get_rank()]))
        engine.step()
    found = [safe_get_full_fp32_param(parameter) for parameter in engine.module.parameters()]
    engine.destroy()
    start = small_model()
    return _largest(found, whole), _largest([parameter.detach() for parameter in start.parameters()], whole)


def _largest(found: list[Tensor], expected: nn.Module) -> float:
    pairs = zip(found, expected.parameters(), strict=True)
    return max((ours - theirs.detach()).abs().max().item() for ours, theirs in pairs)
