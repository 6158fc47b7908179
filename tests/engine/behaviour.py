"""Runs on every rank of a pool: what a user may do with the engine beside training."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from torch import Tensor, nn

import presence_ds
from presence_ds import PresenceConfig
from presence_ds.engine.zero import is_partitioned
from presence_ds.errors import PresenceError
from tests.engine.training import (
    LENGTH,
    MICRO_BATCH,
    data,
    deepspeed_config,
    full_parameters,
    optimizer_for,
    plain,
    train,
)
from tests.models import VOCABULARY, tiny_model, tokens


def start(
    model: nn.Module | None = None,
    *,
    stage: int = 2,
    accumulation_steps: int = 1,
    presence: dict[str, Any] | None = None,
    **changes: Any,
) -> Any:
    model = tiny_model("llama", tied=False) if model is None else model
    presence = presence or {}
    if presence.get("weighting") != {"kind": "clip"} and presence.get("preset") != "calibrated":  # without temperature
        presence = {"preset": "paper", "schedule": {"kind": "constant"}} | presence
    optimizer = optimizer_for("sgd", model.parameters())
    config = deepspeed_config(stage, accumulation_steps, **changes)
    return presence_ds.initialize(model=model, config=config, presence=presence, optimizer=optimizer)[0]


def the_model_stays_plain(stage: int) -> dict[str, Any]:
    plain = tiny_model("gpt2", tied=True)
    model = tiny_model("gpt2", tied=True)
    engine = start(model, stage=stage)
    ids = tokens(2, 9)
    engine.eval()
    with torch.no_grad():
        output, expected = engine(input_ids=ids, labels=ids), plain.eval()(input_ids=ids, labels=ids)
        generated = engine.module.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
        expected_generated = plain.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    engine.train()
    names = list(engine.module_state_dict())
    cached: list[bool | None] = []
    model.transformer.register_forward_pre_hook(
        lambda module, args, inputs: cached.append(inputs.get("use_cache")), with_kwargs=True
    )
    train(engine, data(1, 1))
    return {
        "engine.module is the model": engine.module is model,
        "loss": torch.allclose(output.loss, expected.loss, atol=1e-6),
        "logits": torch.allclose(output.logits, expected.logits, atol=1e-5),
        "generate": torch.equal(generated, expected_generated),
        "no keys and values are kept in training": cached == [False] and model.config.use_cache,
        "names": names == list(plain.state_dict()),
        "nothing waits": not engine.presence.deferred,
        "forward set by the user stays": forward_set_by_the_user(),
        "no forward left behind": not any("forward" in module.__dict__ for module in engine.module.modules()),
        "no state left in ZeRO's parameters": stage < 3 or all(p.data.numel() == 0 for p in engine.module.parameters()),
    }


def forward_set_by_the_user() -> bool:
    """A model whose forward was replaced on the instance trains through it and keeps it."""
    model, calls = tiny_model("llama", tied=False), []
    original = model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    model.forward = counted
    engine = start(model)
    calls.clear()
    train(engine, data(2, 1))
    return model.forward is counted and len(calls) == 2


def configurations(directory: str) -> list[dict[str, Any]]:
    """The presence section of a DeepSpeed dict, of a DeepSpeed JSON file, and a `PresenceConfig`, in the same words."""
    section = {
        "preset": "paper",
        "layers": "first",
        "estimator": "exact",
        "schedule": {"switch_step": 4, "tau_direct": 0.5},
    }
    settings = deepspeed_config(2, 1)
    path = Path(directory) / f"config_{dist.get_rank()}.json"
    path.write_text(json.dumps(settings | {"presence": section}))
    configurations = [
        {"config": settings | {"presence": section}},
        {"config": path},
        {"config": str(path), "presence": None},
        {"config": settings, "presence": PresenceConfig.from_mapping(section)},
    ]
    found = []
    for configuration in configurations:
        model = tiny_model("gpt2", tied=False)
        optimizer = optimizer_for("sgd", model.parameters())
        engine, its_optimizer, loader, scheduler = presence_ds.initialize(
            model=model, optimizer=optimizer, **configuration
        )
        assert its_optimizer is engine.optimizer
        assert loader is scheduler is None
        train(engine, data(1, 1))
        statistics = engine.presence.statistics
        found.append({"scored": engine.presence.scored, "tau": statistics["tau"], "si_mean": statistics["si_mean"]})
    return found


def stated_boundary(stage: int, strategy: str) -> float:
    """Largest parameter difference between a step of 2 micro-batches, of 3 or 1 planned, and one of 2 planned."""
    statistics = "running" if strategy == "one_pass" else "batch"
    ends = []
    for planned in (2, 3, 1):
        presence = {"strategy": strategy, "estimator": "exact", "statistics": statistics}
        engine = start(stage=stage, accumulation_steps=planned, presence=presence)
        for index, micro_batch in enumerate(data(1, 2)[0]):
            ids = micro_batch[dist.get_rank()]
            engine.set_gradient_accumulation_boundary(index == 1)
            engine.backward(engine(input_ids=ids, labels=ids))
            engine.step()
        ends.append(full_parameters(engine))
    expected, *found = ends
    return max((ours - theirs).abs().max().item() for end in found for ours, theirs in zip(end, expected, strict=True))


def step_after_a_failure(strategy: str, accumulation_steps: int, stage: int) -> float:
    """Largest parameter difference between a step after one in which no sample was finite, and the same step alone.

    To DeepSpeed the failed step's last micro-step is still to come: that is what the step after it consists of.
    """
    statistics = "running" if strategy == "one_pass" else "batch"
    ends = []
    for fails in (False, True):
        presence = {"strategy": strategy, "estimator": "exact", "statistics": statistics}
        engine = start(accumulation_steps=accumulation_steps if fails else 1, presence=presence, stage=stage)
        if fails:
            spoiled = engine.module.model.norm.register_forward_hook(lambda module, inputs, output: output * torch.nan)
            failed = data(1, accumulation_steps)
            assert error_of(lambda engine=engine, failed=failed: train(engine, failed)).startswith("NonFiniteError")
            spoiled.remove()
            for parameter in engine.module.parameters():  # nothing poses as whole
                assert parameter.numel() == 0 or not is_partitioned(parameter)
        train(engine, data(2, 1)[1:])
        assert engine.was_step_applied()
        ends.append(full_parameters(engine))
    return max((ours - theirs).abs().max().item() for ours, theirs in zip(*ends, strict=True))


def step_after_a_load(directory: str, strategy: str) -> tuple[int, float]:
    """A checkpoint without PRESENCE is loaded in the middle of a step, and a step follows.

    Returns:
        Its samples, and the largest parameter difference to the same step alone.
    """
    ends, samples = [], 0
    for loads in (False, True):
        engine = start(accumulation_steps=2, presence={"strategy": strategy, "estimator": "exact"})
        if loads:
            DeepSpeedEngine.save_checkpoint(engine, directory, tag="plain")
            ids = data(2, 1)[1, 0, dist.get_rank()]
            engine(input_ids=ids, labels=ids)
            engine.load_checkpoint(directory, tag="plain")
        train(engine, data(1, 2))
        samples = engine.presence.statistics["samples"]
        ends.append(full_parameters(engine))
    return samples, max((ours - theirs).abs().max().item() for ours, theirs in zip(*ends, strict=True))


def statistics_and_weights(accumulation_steps: int) -> dict[str, Any]:
    """Two steps of samples of two sources; everything that is to be compared over ranks."""
    engine = start(accumulation_steps=accumulation_steps, presence={"estimator": "projected", "projection_dim": 4})
    before = (engine.presence.scores, engine.presence.weights)
    rank, scores, losses = dist.get_rank(), [], []
    for step in data(2, accumulation_steps):
        scores, losses = [], []
        for micro_batch in step:
            sources = torch.tensor([0, 7, 7]) if rank == 0 else torch.tensor([7, 7, 7])
            loss = engine(input_ids=micro_batch[rank], labels=micro_batch[rank], source_ids=sources)
            engine.backward(loss)
            engine.step()
            scores.append(engine.presence.scores)
            losses.append(engine.presence.losses)
    return {
        "before": before,
        "scores": torch.cat(scores),
        "losses": torch.cat(losses),
        "weights": engine.presence.weights,
        "statistics": engine.presence.statistics,
    }


@dataclass(frozen=True)
class Resumed:
    """A training at a stretch, and one that was saved after half of its steps and goes on in another engine."""

    whole: list[Tensor]
    resumed: list[Tensor]
    whole_statistics: dict[str, Any]
    resumed_statistics: dict[str, Any]
    whole_state: dict[str, Any]  # of `Presence`
    resumed_state: dict[str, Any]


def resume(directory: str, stage: int, accumulation_steps: int, presence: dict[str, Any], half: int) -> Resumed:
    """Train ``half`` steps twice; with signal alignment a reference is observed before every step."""
    batches = data(2 * half, accumulation_steps)
    reference = tokens(MICRO_BATCH, LENGTH, seed=9)

    def go(engine: Any, steps: Tensor) -> None:
        for step in steps:
            if presence.get("signal") == "alignment":
                ids = ((reference + int(step.sum())) % VOCABULARY).to(engine.device)
                engine.observe_reference(input_ids=ids, labels=ids)
            train(engine, step[None])

    whole, first, second = (
        start(stage=stage, accumulation_steps=accumulation_steps, presence=presence) for _ in range(3)
    )
    go(whole, batches)
    go(first, batches[:half])
    first.save_checkpoint(directory, tag="half", client_state={"mine": 1})
    go(second, batches[-1:])  # what it did before the load must not matter
    _, client_state = second.load_checkpoint(directory)
    assert client_state["mine"] == 1
    assert "presence" not in client_state
    go(second, batches[half:])
    ends = [(full_parameters(engine), engine.presence) for engine in (whole, second)]
    (whole_parameters, ours), (resumed_parameters, theirs) = ends
    states = [plain(presence.state_dict()) for presence in (ours, theirs)]
    return Resumed(whole_parameters, resumed_parameters, ours.statistics, theirs.statistics, *states)


def error_of(function: Callable[[], Any]) -> str:
    try:
        function()
    except PresenceError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"
