"""`presence export`: any checkpoint becomes a folder that transformers loads, or a stated error and no folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.zero.config import ZeroStageEnum
from transformers import AutoConfig, AutoModelForCausalLM

from presence_ds import cli
from tests.conftest import Pools
from tests.ranks import Ranks
from tests.trainer.checkpoint import exporting

CASES = [  # ranks, ZeRO stage, precision, model, tied
    (ranks, stage, precision, kind, tied)
    for stage in (0, 1, 2, 3)
    for ranks, precision, kind, tied in (
        (2, "fp32", "llama", True),
        (2, "bf16", "gpt2", False),
        (1, "bf16", "llama", True),
    )
    if ranks == 2 or stage in (0, 3)
]


@pytest.mark.parametrize(("ranks", "stage", "precision", "kind", "tied"), CASES)
def test_an_exported_model_computes_what_the_engine_did(
    pools: Pools, tmp_path: Path, ranks: int, stage: int, precision: str, kind: str, tied: bool
) -> None:
    arguments = (str(tmp_path / "saved"), stage, precision, kind, tied)
    expected = pools.get(ranks).run(exporting.write_checkpoint, *arguments)[0]["logits"]
    cli.main(["export", str(tmp_path / "saved" / "here"), str(tmp_path / "model"), "--dtype", precision])
    assert [path.name for path in (tmp_path / "model").glob("*.safetensors")] == ["model.safetensors"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert model.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    tolerance = {"fp32": 1e-6, "bf16": 0.0}[precision]
    torch.testing.assert_close(exporting.logits(model), expected, rtol=0.0, atol=tolerance)


@pytest.fixture(scope="module")
def saved(pools: Pools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What engine.save_checkpoint was given."""
    folder = tmp_path_factory.mktemp("saved")
    two_ranks: Ranks = pools.get(2)
    two_ranks.run(exporting.write_checkpoint, str(folder), 2, "bf16", "llama", True)
    return folder


def fails(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", *map(str, arguments)])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_float32_is_the_optimizers_own_weights(saved: Path, tmp_path: Path) -> None:
    cli.main(["export", str(saved), str(tmp_path / "exact")])
    cli.main(["export", str(saved), str(tmp_path / "rounded"), "--dtype", "bf16"])
    exact, rounded = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("exact", "rounded")
    )
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(exact[name], exact[name].bfloat16().float())
    assert all(torch.equal(exact[name].bfloat16(), rounded[name].bfloat16()) for name in exact)


def test_a_folder_is_replaced_only_if_asked_and_only_if_it_holds_a_model(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model"
    cli.main(["export", str(saved), str(output)])
    assert "output is" in fails(capsys, saved, output)
    cli.main(["export", str(saved), str(output), "--overwrite", "--dtype", "bf16"])
    assert AutoConfig.from_pretrained(output).dtype == torch.bfloat16
    (tmp_path / "mine").mkdir()
    assert "holds no model" in fails(capsys, saved, tmp_path / "mine", "--overwrite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "model"]


class Pickled:
    """Its pickle calls ``function`` when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def test_an_enumeration_may_be_pickled_by_attribute(saved: Path, tmp_path: Path) -> None:
    """As Python 3.11.0 to 3.11.3 do, whatever this one does; the attribute of anything else is refused."""
    shutil.copytree(saved, tmp_path / "copy")
    for shard in (tmp_path / "copy" / "here").glob("*_optim_states.pt"):
        states = torch.load(shard, weights_only=False)
        stage = states["optimizer_state_dict"]["zero_stage"]
        states["optimizer_state_dict"]["zero_stage"] = Pickled(getattr, type(stage), stage.name)
        torch.save(states, shard)
    for name in ("saved", "copy"):
        cli.main(["export", str(saved if name == "saved" else tmp_path / name), str(tmp_path / f"{name} model")])
    files = [(tmp_path / f"{name} model" / "model.safetensors").read_bytes() for name in ("saved", "copy")]
    assert files[0] == files[1]


def test_a_checkpoint_that_cannot_be_used_leaves_no_folder(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, output, harm = tmp_path / "copy", tmp_path / "model", tmp_path / "harm"
    shutil.copytree(saved, copy)
    shard = copy / "here" / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    states = copy / "here" / "mp_rank_00_model_states.pt"
    whole, plain = shard.read_bytes(), torch.load(states, weights_only=True)

    assert "there is no checkpoint" in fails(capsys, tmp_path / "nowhere", output)
    assert "tokenizer is nowhere" in fails(capsys, copy, output, "--tokenizer", "nowhere")
    shard.unlink()
    assert "is damaged or missing" in fails(capsys, copy, output)
    shard.write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in fails(capsys, copy, output)
    for foreign in (
        Pickled(os.mkdir, str(harm)),
        Pickled(getattr, Path, "cwd"),
        Pickled(getattr, ZeroStageEnum, "mro"),
    ):
        torch.save(foreign, shard)
        assert "holds objects that no DeepSpeed checkpoint holds" in fails(capsys, copy, output)
    assert not harm.exists()
    shard.write_bytes(whole)

    other = plain["model"] | {"config": plain["model"]["config"].replace('"hidden_size": 32', '"hidden_size": 64')}
    for changed, expected in (({}, "does not say"), (other, "a param with shape torch.Size([97, 32]) from checkpoint")):
        torch.save(plain | {"model": changed}, states)
        assert expected in fails(capsys, copy, output)
    torch.save({name: value for name, value in plain.items() if name != "model"}, states)
    assert "does not say" in fails(capsys, copy, output)
    (copy / "here" / "manifest.json").write_text('{"files": {"gone.pt": 3}}')
    assert "it is damaged (manifest.json" in fails(capsys, copy, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
