"""Whole models scored by the kernels, against torch."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from presence_ds.engine.scorer import Scorer
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters
from tests.influence.kernels.interpreter import interpreted
from tests.models import tiny_model, tokens

pytest.importorskip("triton", reason="triton is not installed")


def scored(
    tied: bool, dtype: torch.dtype, kernels: bool, keeps_sketches: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Scores, losses and sketches of three samples, one of which has a third of its tokens."""
    model = tiny_model("llama", tied=tied, dtype=dtype)
    ids = tokens(3, 23)
    labels = ids.clone()
    labels[1, 8:] = -100
    influence = SelfInfluence(select_parameters(model, "all"), 8, 0, keeps_sketches=keeps_sketches, kernels=kernels)
    scorer = Scorer(model, influence, SampleLoss(kernels=kernels), sketches=keeps_sketches)
    found = scorer.score(model.forward, (), {"input_ids": ids, "labels": labels})
    assert found.scores is not None
    return found.scores, found.losses, found.sketches


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
@interpreted
def test_scores_are_those_of_torch_but_for_rounding(tied: bool, dtype: torch.dtype) -> None:
    """The head of a tied model is a second use of the embedding."""
    from presence_ds.influence.kernels import cross_entropy, sketch

    with (
        patch.object(sketch, "sketch", wraps=sketch.sketch) as sketches,
        patch.object(cross_entropy, "cross_entropy", wraps=cross_entropy.cross_entropy) as losses,
    ):
        kernel = scored(tied, dtype, True)
        expected = sketches.call_count, losses.call_count
        torch_path = scored(tied, dtype, False)
        assert (sketches.call_count, losses.call_count) == expected
    assert expected[0] >= 15  # seven linear layers in each of two blocks, and the head
    assert expected[1] >= 1
    torch.testing.assert_close(kernel[1], torch_path[1], rtol=1e-6, atol=1e-6)
    rtol = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(kernel[0], torch_path[0], rtol=rtol, atol=0.0)
    assert not torch.equal(kernel[0], torch_path[0])


@pytest.mark.parametrize("tied", [False, True])
@interpreted
def test_sketches_of_a_whole_model_are_those_of_torch(tied: bool) -> None:
    kernel, torch_path = (scored(tied, torch.float32, kernels, True)[2] for kernels in (True, False))
    assert kernel is not None
    assert torch_path is not None
    torch.testing.assert_close(kernel, torch_path, rtol=1e-4, atol=1e-6)
    assert not torch.equal(kernel, torch_path)


@interpreted
def test_scores_are_the_same_again_to_the_bit() -> None:
    assert torch.equal(scored(True, torch.bfloat16, True)[0], scored(True, torch.bfloat16, True)[0])
