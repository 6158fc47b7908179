"""``presence estimate``: the command, and figures that can be worked out by hand."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from presence_ds import cli
from presence_ds.commands import estimate as command
from presence_ds.commands.estimate_report import print_estimate
from presence_ds.commands.recipe_arguments import read_recipe
from presence_ds.trainer.building.architecture import load_model_config
from presence_ds.trainer.building.construction import build_empty_model
from presence_ds.trainer.estimate.estimate import Estimate, estimate
from tests.trainer.conftest import ROOT


def of(recipe: str, ranks: int, *overrides: str) -> Estimate:
    parser = command.make_parser()
    path = ROOT / "recipes" / f"{recipe}.yaml"
    return estimate(*read_recipe(parser, parser.parse_args([str(path), *overrides])), ranks)


def test_what_the_350m_recipe_needs() -> None:
    """24 blocks, two tied embeddings and the norms; bytes per parameter as ds_configs/README.md has them."""
    found = of("llama_350m", 8)
    block = 4 * 1024**2 + 3 * 1024 * 2816 + 2 * 1024
    parameters = 24 * block + 32000 * 1024 + 1024
    assert found.parameters == parameters
    assert found.plan.tokens_per_step == 256 * 1024
    buffers = 2 * 50_000_000 * 2
    for stage, per_parameter in {0: 16, 1: 4 + 12 / 8, 2: 2 + 14 / 8, 3: 16 / 8}.items():
        state = found.states[stage]
        counted = state.parameters + state.gradients + state.optimizer
        assert counted == pytest.approx(per_parameter * parameters, rel=0.002)  # the norms of stage 3 are not sharded
    assert found.states[2].buffers == buffers
    assert found.states[0].device == 16 * parameters
    weights = parameters - 49 * 1024  # without the norms
    assert found.model_flops == 6 * weights + 12 * 24 * 1024 * 1024
    assert found.added_flops is not None
    assert 0.0 < found.added_flops / found.model_flops < 0.01  # one block is scored


def test_strategies_and_checkpointing() -> None:
    """two_pass adds at least the forward and the input gradients; checkpointing keeps far less than what it saves."""
    plain = of("llama_1b_zero3", 8, "--presence.signal", "loss")
    assert plain.added_flops == plain.presence == 0
    two_pass = of("llama_1b_zero3", 8, "--presence.strategy", "two_pass")
    assert two_pass.added_flops is not None
    assert two_pass.model_flops is not None
    assert 2 / 3 < two_pass.added_flops / two_pass.model_flops < 0.75  # attention has no weight gradients
    checkpointed = of(
        "llama_1b_zero3", 8, "--presence.strategy", "two_pass", "--model.activation_checkpointing", "true"
    )
    assert checkpointed.activations < 0.5 * two_pass.activations
    assert of("llama_1b_zero3", 8, "--model.attention", "eager").activations > 2 * plain.activations
    assert of("llama_1b_zero3", 8, "--training.precision", "fp16").total(3) == of("llama_1b_zero3", 8).total(3)


def test_offloaded_states_lie_in_the_host() -> None:
    offload = str(ROOT / "ds_configs" / "zero3_offload.json")
    here, there = of("llama_1b_zero3", 8), of("llama_1b_zero3", 8, "--deepspeed", offload)
    assert there.states[3].optimizer == 0
    assert there.states[3].host == pytest.approx(here.parameters * 16 / 8)  # with float32 gradients
    assert there.total(3) == here.total(3) - here.states[3].optimizer


def test_no_weights_are_made() -> None:
    parser = command.make_parser()
    recipe, _ = read_recipe(parser, parser.parse_args([str(ROOT / "recipes" / "llama_1b_zero3.yaml")]))
    model = build_empty_model(load_model_config(recipe.model), recipe.model, torch.bfloat16)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_command(tiny_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["estimate", str(tiny_recipe), "--ranks", "4", "--training.micro_batch_size", "2"])
    printed = capsys.readouterr().out
    for expected in ("tokens per step", "512 on 4 ranks", "ZeRO-2*", "activations", "in all", "scoring adds"):
        assert expected in printed
    assert "at most 512" not in printed
    cli.main(["estimate", str(tiny_recipe), "--ranks", "4", "--data.packing=document", "--data.noise=null"])
    assert "at most 1,024 on 4 ranks" in capsys.readouterr().out


def test_experts_are_estimated_without_activations_and_flops(tiny_recipe: Path) -> None:
    parser = command.make_parser()
    experts = "{model_type: mixtral, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, " + (
        "num_attention_heads: 4, num_key_value_heads: 2, num_local_experts: 4}"
    )
    options = ["--model.config", experts, "--presence.strategy", "two_pass"]
    found = estimate(*read_recipe(parser, parser.parse_args([str(tiny_recipe), *options])), 1)
    assert found.added_flops is found.activations is None
    assert found.states[2].parameters > 0
    console = Console(record=True, width=100, quiet=False)
    print_estimate(console, found)
    assert "not counted" in console.export_text()


def test_ranks_below_one(tiny_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["estimate", str(tiny_recipe), "--ranks", "0"])
    assert capsys.readouterr().err == "presence: error: ranks is 0: it must be at least 1\n"
