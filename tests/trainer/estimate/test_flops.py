"""FLOPs of a run without numbers against formulas, and against a run with numbers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSeq2SeqLM

from presence_ds.data import ObjectiveConfig
from presence_ds.engine import PresenceConfig
from presence_ds.trainer.building.architecture import load_model_config
from presence_ds.trainer.building.model_config import ModelConfig
from presence_ds.trainer.estimate.flops import count_flops, step_flops, training_flops

LENGTH, WIDTH, LAYERS, ROWS = 24, 32, 2, 97
CAUSAL = ObjectiveConfig().lengths(LENGTH)
LLAMA = {
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": ROWS,
}
GPT2 = {"model_type": "gpt2", "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "vocab_size": ROWS}
EXPERTS = LLAMA | {"model_type": "mixtral", "num_local_experts": 4}
T5 = {
    "model_type": "t5",
    "d_model": WIDTH,
    "d_ff": 48,
    "num_layers": LAYERS,
    "num_heads": 4,
    "d_kv": 8,
    "vocab_size": ROWS,
}
BART = {"model_type": "bart", "d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 2, "vocab_size": ROWS}
BART |= {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
SHAPES = {  # of the linear layers of a block
    "llama": [(32, 32), (16, 32), (16, 32), (32, 32), (48, 32), (48, 32), (32, 48)],
    "gpt2": [(96, 32), (32, 32), (128, 32), (32, 128)],
}


def of(fields: dict[str, object], method: PresenceConfig | None = None, *, checkpointing: bool = False) -> float:
    model = ModelConfig(config=fields, activation_checkpointing=checkpointing)
    found = step_flops(load_model_config(model), model, method, CAUSAL, 3)
    assert found is not None
    return found


def weights(fields: dict[str, object]) -> list[tuple[int, int]]:
    return SHAPES[str(fields["model_type"])] * LAYERS + [(ROWS, WIDTH)]


@pytest.mark.parametrize("fields", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_training_is_what_the_paper_says(fields: dict[str, object]) -> None:
    """6N + 12·L·H·Q·T; computing activations again does not count."""
    elements = sum(rows * cols for rows, cols in weights(fields))
    model = ModelConfig(config=fields, activation_checkpointing=True)
    expected = 6 * elements + 12 * LAYERS * WIDTH * LENGTH
    assert training_flops(load_model_config(model), model, CAUSAL) == expected
    assert of(fields) == expected


@pytest.mark.parametrize("fields", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_what_scoring_adds(fields: dict[str, object]) -> None:
    """Exact norms: the gradient of a sample, or the products of its inputs and of its output gradients, if cheaper."""
    fields = fields | {"tie_word_embeddings": False}
    method = {"estimator": "exact", "layers": "all"}
    one_pass = of(fields, PresenceConfig(strategy="one_pass", **method)) - of(fields)  # type: ignore[arg-type]
    shapes = weights(fields)
    scoring = sum(2 * min(rows * cols, LENGTH * (rows + cols)) for rows, cols in shapes)
    assert one_pass == pytest.approx(scoring, rel=0.01)  # a few products of single numbers beside it
    elements = sum(rows * cols for rows, cols in shapes)
    again = 4 * elements + 12 * LAYERS * WIDTH * LENGTH  # a forward, and a backward without gradients of weights
    two_pass = PresenceConfig(strategy="two_pass", **method)  # type: ignore[arg-type]
    assert of(fields, two_pass) - of(fields) == pytest.approx(scoring + again, rel=0.01)
    checkpointed = of(fields, two_pass, checkpointing=True) - of(fields, checkpointing=True)
    assert checkpointed > scoring + again + 1.8 * elements  # the blocks once more


@pytest.mark.parametrize("fields", [T5, BART], ids=["t5", "bart"])
def test_encoder_decoder(fields: dict[str, object]) -> None:
    """Two lengths: a run with numbers does as much."""
    lengths = ObjectiveConfig("span_corruption").lengths(LENGTH)
    model = ModelConfig(config=fields | {"decoder_start_token_id": 0, "pad_token_id": 0})
    config = load_model_config(model)
    real = AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager")
    inputs, labels = (torch.full((3, length), 5) for length in (lengths.inputs, lengths.targets))
    with FlopCounterMode(display=False) as counter:
        real(input_ids=inputs, labels=labels).loss.backward()
    assert training_flops(config, model, lengths) == pytest.approx(counter.get_total_flops() / 3 / lengths.row)


def test_share_of_scoring_is_of_what_is_computed() -> None:
    """With what activation checkpointing does twice, which training needs not."""
    for checkpointing in (False, True):
        model = ModelConfig(config=LLAMA, activation_checkpointing=checkpointing)
        flops = count_flops(load_model_config(model), model, PresenceConfig(), CAUSAL, 3)
        assert flops.training is not None
        assert flops.plain is not None
        assert flops.scored is not None
        assert (flops.plain > flops.training) == checkpointing
        assert flops.scoring == flops.scored - flops.plain
        assert flops.scoring_share == 1.0 - flops.plain / flops.scored


def test_experts_are_not_counted() -> None:
    model = ModelConfig(config=EXPERTS)
    assert training_flops(load_model_config(model), model, CAUSAL) is None


def test_layers_that_a_step_may_leave_out_count() -> None:
    lengths = ObjectiveConfig("span_corruption").lengths(LENGTH)
    counts = []
    for share in (0.0, 1.0):
        dropped = {"encoder_layerdrop": share, "decoder_layerdrop": share}
        model = ModelConfig(config=BART | dropped | {"decoder_start_token_id": 0, "pad_token_id": 0})
        counts.append(training_flops(load_model_config(model), model, lengths))
    assert counts[0] == counts[1] is not None
