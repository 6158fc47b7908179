"""A model that only scores: what it computes in, and what it leaves alone."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from presence_ds import PresenceConfig
from presence_ds.engine.inference import Inference, scoring_config
from presence_ds.engine.scorer import Found
from presence_ds.engine.zero import gathers_parameters

IDS = torch.randint(64, (2, 96), generator=torch.Generator().manual_seed(1))
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture(autouse=True)
def rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)


def llama() -> LlamaForCausalLM:
    """With rotary positions, and weights large enough for positions to matter."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, initializer_range=0.2, tie_word_embeddings=False))


@pytest.fixture
def infer() -> Iterator[Any]:
    made: weakref.WeakSet[Inference] = weakref.WeakSet()

    def infer(stage: int = 1, precision: str = "fp32", **config: Any) -> Inference:
        zero = {"stage": stage} | ({"stage3_param_persistence_threshold": 0} if stage == 3 else {})
        settings = {"bf16": {"enabled": precision == "bf16"}, "zero_optimization": zero}
        scoring = scoring_config(PresenceConfig(estimator="exact", **config))
        inference = Inference(llama(), scoring, settings, micro_batch_size=len(IDS))
        made.add(inference)
        return inference

    yield infer
    for inference in made:
        inference.close()


def scores(inference: Inference) -> Found:
    return inference.score({"input_ids": IDS, "labels": IDS})


def test_bf16_leaves_positions_as_training_has_them(infer: Any) -> None:
    """Below stage 3, and at it, to the bit."""
    first, partitioned = infer(1, "bf16"), infer(3, "bf16")
    for inference in (first, partitioned):
        assert {buffer.dtype for buffer in inference.module.buffers() if buffer.is_floating_point()} == {torch.float32}
        assert {parameter.dtype for parameter in inference.module.parameters()} == {torch.bfloat16}
    ours, theirs = scores(first), scores(partitioned)
    assert torch.equal(ours.losses, theirs.losses)
    assert ours.scores is not None
    assert theirs.scores is not None
    assert torch.equal(ours.scores, theirs.scores)
    plain = llama()
    for parameter in plain.parameters():
        parameter.data = parameter.data.bfloat16()
    logits = plain.eval()(input_ids=IDS).logits[:, :-1].float()
    losses = F.cross_entropy(logits.mT, IDS[:, 1:], reduction="none").mean(1)
    torch.testing.assert_close(ours.losses, losses, rtol=1e-4, atol=0)


def test_at_stage_3_no_device_has_the_whole_model(infer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(*_: object, **__: object) -> None:
        raise AssertionError("the whole model is moved")

    monkeypatch.setattr(LlamaForCausalLM, "to", moved)
    inference = infer(3)
    assert gathers_parameters(inference.module)


def test_pytorch_is_left_as_it_is(infer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`zero.Init` replaces its linear function for the whole process unless it is told not to."""
    own = torch._C._nn.linear
    monkeypatch.setattr(torch.nn.functional, "linear", own)  # another test may have had it replaced
    infer(3)
    assert torch.nn.functional.linear is own


def test_a_model_that_is_closed_is_gone(infer: Any) -> None:
    """At stage 3 DeepSpeed would keep all of them, one for each checkpoint."""
    inference = infer(3)
    model = weakref.ref(inference.module)
    inference.close()
    del inference
    gc.collect()
    assert model() is None


@pytest.mark.parametrize("stage", [1, 3])
def test_what_is_not_scored_is_frozen(infer: Any, stage: int) -> None:
    """Scores are those of the first block alone, as autograd has them."""
    inference = infer(stage, layers="first")
    found = scores(inference)
    trained = {name for name, parameter in inference.module.named_parameters() if parameter.requires_grad}
    plain = llama().double().eval()
    block = dict(plain.model.layers[0].named_parameters())
    assert trained == {f"model.layers.0.{name}" for name in block}
    expected = []
    for row in IDS:
        loss = F.cross_entropy(plain(input_ids=row[None]).logits[0, :-1], row[1:])
        expected.append(sum(grad.square().sum() for grad in torch.autograd.grad(loss, list(block.values()))))
    assert found.scores is not None
    torch.testing.assert_close(found.scores.double(), torch.stack(expected), rtol=1e-3, atol=0)


@pytest.mark.parametrize("stage", [1, 3])
def test_the_loss_alone(infer: Any, stage: int) -> None:
    inference = infer(stage, signal="loss")
    found = scores(inference)
    assert found.scores is None
    assert not any(parameter.requires_grad for parameter in inference.module.parameters())
    assert found.losses.isfinite().all()
