"""FLOPs from layer shapes against torch's own count of the operations that run."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import MixtralConfig, MixtralForCausalLM, PretrainedConfig

from presence_ds.data import ObjectiveConfig
from presence_ds.engine import PresenceConfig
from presence_ds.engine.scorer import Scorer
from presence_ds.engine.weight_gradients import weight_gradient_loss
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters
from presence_ds.trainer.estimate.flops import added_flops, count_flops, scoring_flops
from tests.families.models import FAMILIES
from tests.models import KINDS, tiny_model, tokens

BATCH, LENGTH = 3, 24
CAUSAL = ObjectiveConfig().lengths(LENGTH)
DIMENSIONS = {"k below every side": 8, "k above some sides": 40}


def counted(function) -> int:  # type: ignore[no-untyped-def]
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_backward(kind: str, tied: bool) -> None:
    """Eager attention, whose two products show. GPT-2 adds biases to its products, which count alike."""
    model = tiny_model(kind, tied=tied)
    model.set_attn_implementation("eager")
    flops = count_flops(model, model.config, CAUSAL)
    assert flops is not None
    ids = tokens(BATCH, LENGTH)
    assert counted(lambda: model(input_ids=ids)) == flops.forward * BATCH * LENGTH
    total = counted(lambda: model(input_ids=ids, labels=ids).loss.backward())
    assert total == flops.model * BATCH * LENGTH
    assert flops.model == 3 * flops.weights + 12 * 2 * 32 * LENGTH  # 6N + 12·L·H·Q·T


@pytest.mark.parametrize("layers", ["all", "first"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("estimator", ["exact", *DIMENSIONS])
@pytest.mark.parametrize("kind", KINDS)
def test_what_one_pass_adds(kind: str, estimator: str, tied: bool, layers: str) -> None:
    """A whole step of one_pass runs the FLOPs of the model, all of them once, and those of scoring."""
    model = tiny_model(kind, tied=tied)
    model.set_attn_implementation("eager")
    k = DIMENSIONS.get(estimator)
    config = PresenceConfig(layers=layers, estimator="exact" if k is None else "projected", projection_dim=k or 1)
    scorer = Scorer(model, SelfInfluence(select_parameters(model, layers), k, 0), SampleLoss())
    ids = tokens(BATCH, LENGTH)

    def step() -> None:
        scored = scorer.score(model.forward, (), {"input_ids": ids, "labels": ids})
        weight_gradient_loss(scored, torch.ones(BATCH, dtype=torch.float64)).backward()

    step()  # looks for strays, once
    flops = count_flops(model, model.config, CAUSAL)
    assert flops is not None
    scoring = scoring_flops(model, config, LENGTH)
    added = added_flops(flops, config, scoring, checkpointing=False)
    assert counted(step) == pytest.approx((flops.model + added) * BATCH * LENGTH, rel=0.01)


def test_what_two_pass_adds() -> None:
    model = tiny_model("llama", tied=True)
    model.set_attn_implementation("eager")
    influence = SelfInfluence(select_parameters(model, "all"), 8, 0)
    scorer = Scorer(model, influence, SampleLoss(), strategy="one_pass")
    ids = tokens(BATCH, LENGTH)
    flops = count_flops(model, model.config, CAUSAL)
    assert flops is not None
    config = PresenceConfig(projection_dim=8, strategy="two_pass")
    batch = {"input_ids": ids, "labels": ids}
    scorer.score(model.forward, (), batch)
    added = added_flops(flops, config, scoring_flops(model, config, LENGTH), checkpointing=False)
    assert counted(lambda: scorer.score(model.forward, (), batch)) == pytest.approx(added * BATCH * LENGTH, rel=0.01)


@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5", "bart"])
def test_encoder_decoder(kind: str) -> None:
    """Two lengths: what the encoder and the keys and values of cross-attention see, and what the rest sees."""
    lengths = ObjectiveConfig("span_corruption").lengths(LENGTH)
    model = FAMILIES[kind].build(tied=False, dtype=torch.float32)
    model.set_attn_implementation("eager")
    inputs, labels = (torch.full((BATCH, length), 3) for length in (lengths.inputs, lengths.targets))
    flops = count_flops(model, model.config, lengths)
    assert flops is not None
    batch = {"input_ids": inputs, "decoder_input_ids": labels}
    assert counted(lambda: model(**batch)) == pytest.approx(flops.forward * BATCH * lengths.row)
    total = counted(lambda: model(**batch, labels=labels).loss.backward())
    assert total == pytest.approx(flops.model * BATCH * lengths.row)


def test_experts_are_not_counted() -> None:
    config: PretrainedConfig = MixtralConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    with torch.device("meta"):
        assert count_flops(MixtralForCausalLM(config), config, CAUSAL) is None
