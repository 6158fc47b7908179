"""Every family against autograd on one sample at a time: self-influence, and weighted gradients of every parameter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from presence_ds.capture import DenseTerm, Instrumentation, check_attribution
from tests.families.models import FAMILIES, VOCABULARY, WIDTH
from tests.families.samples import Captured, make_batch, one_at_a_time

# Norms and rotary embeddings of transformers are float32 inside, whatever the model's dtype.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=settings().max_examples // 4)  # each builds a model
@given(data=st.data())
def test_scores_and_gradients_are_those_of_single_samples(name: str, data: st.DataObject) -> None:
    family = FAMILIES[name]
    model = family.build(tied=data.draw(st.sampled_from(family.tying), "tied"), seed=data.draw(st.integers(0, 99)))
    # Eager attention takes its softmax in float32, where the float64 mask of a row that sees nothing is infinite.
    sides = [None, "right"] if model.config._attn_implementation == "eager" else [None, "right", "left"]
    batch = make_batch(
        batch_size := data.draw(st.integers(1, 4), "batch size"),
        data.draw(st.integers(2, 9), "length"),
        target_length=data.draw(st.integers(2, 7), "target length") if family.encoder_decoder else None,
        ignored=data.draw(st.sampled_from([0.0, 0.5]), "share of labels ignored"),
        padding_side=data.draw(st.sampled_from(sides), "padding side"),
        seed=data.draw(st.integers(0, 99)),
    )
    captured = Captured(model, batch)
    parameters = captured.parameters
    expected = one_at_a_time(model, batch, list(parameters.values()))
    brute = torch.stack([sum(gradient.square().sum() for gradient in sample) for sample in expected])
    torch.testing.assert_close(captured.scores(), brute, rtol=1e-4, atol=1e-10)
    wide = 4 * WIDTH  # no side is wider: the projected form is exact too, but takes another way
    torch.testing.assert_close(captured.scores(wide), brute, rtol=1e-4, atol=1e-10)

    weights = torch.rand(batch_size, dtype=torch.float64)
    for index, (parameter, total) in enumerate(captured.weighted_sum(weights).items()):
        by_sample = sum(weight * sample[index] for weight, sample in zip(weights, expected, strict=True))
        torch.testing.assert_close(total, by_sample, **CLOSE, msg=lambda text, of=parameter: f"{of}: {text}")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_modules_are_told_apart(name: str) -> None:
    family = FAMILIES[name]
    for tied in family.tying:
        model = family.build(tied=tied).eval()
        instrumentation = Instrumentation(model)
        assert bool(instrumentation.unattributable) == family.has_experts
        assert (
            check_attribution(
                model, instrumentation.names, VOCABULARY, torch.device("cpu"), encoder_decoder=family.encoder_decoder
            )
            == {}
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_no_matrix_is_left_to_the_general_rule(name: str) -> None:
    """It would keep a gradient per sample, at the size of the parameter; relative biases and norms are small."""
    family = FAMILIES[name]
    model = family.build(tied=family.tying[-1])
    captured = Captured(model, make_batch(2, 5, target_length=4 if family.encoder_decoder else None))
    kept = {name for name, p in captured.parameters.items() for t in captured.terms[p] if isinstance(t, DenseTerm)}
    matrices = {name for name in kept if captured.parameters[name].numel() > 4 * WIDTH}
    assert matrices == set()
