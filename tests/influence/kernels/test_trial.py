"""A kernel that fails, or gives something else, is noticed, said once, and not used again."""

import warnings
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from presence_ds.influence import SampleLoss
from presence_ds.influence.kernels import trial
from presence_ds.influence.outer import sketch_outer
from tests.influence.kernels.interpreter import interpreted

pytest.importorskip("triton", reason="triton is not installed")


def sketches(k: int = 8) -> tuple[Tensor, Tensor]:
    """By what is chosen, and by torch."""
    generator = torch.Generator().manual_seed(0)
    rows, cols, row_matrix, col_matrix = (
        torch.randn(shape, generator=generator) for shape in ((2, 30, 40), (2, 30, 50), (40, k), (50, k))
    )
    given = rows, cols, row_matrix, col_matrix
    return sketch_outer(*given), sketch_outer(*given, kernels=False)


@interpreted
def test_it_is_tried_out_once_for_each_variant() -> None:
    from presence_ds.influence.kernels import sketch

    with patch.object(trial, "_passed", set()), patch.object(sketch, "compare", wraps=sketch.compare) as compare:
        for k in (8, 8, 9):
            found, expected = sketches(k)
            assert not torch.equal(found, expected)
        assert compare.call_count == 2


@interpreted
def test_a_kernel_that_gives_something_else_is_not_used() -> None:
    """Here one that takes its projections for transposed."""
    from presence_ds.influence.kernels import sketch

    original = sketch.sketch
    expected = (
        "kernel sketch fails its trial in torch.float32 on cpu.*: it is off by .*; presence.kernels false leaves it"
    )

    def wrong(
        rows: Tensor, cols: Tensor, row_matrix: Tensor, col_matrix: Tensor, *args: Tensor, **options: int
    ) -> Tensor:
        turned = row_matrix.mT.reshape(row_matrix.shape)
        return original(rows, cols, turned, col_matrix, *args, **options)  # type: ignore[arg-type]

    with patch.object(trial, "_passed", set()), patch.object(trial, "_failed", set()):
        with patch.object(sketch, "sketch", wrong), pytest.warns(UserWarning, match=expected) as caught:
            found, by_torch = sketches()
        assert torch.equal(found, by_torch)
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found, by_torch = sketches(9)  # for good, and without another word
        assert torch.equal(found, by_torch)


@interpreted
def test_a_kernel_that_raises_is_not_used() -> None:
    from presence_ds.influence.kernels import cross_entropy

    logits, labels = torch.randn(2, 5, 30), torch.randint(30, (2, 5))
    no_compiler = patch.object(cross_entropy, "cross_entropy", side_effect=RuntimeError("no C compiler\nat all"))
    with patch.object(trial, "_passed", set()), patch.object(trial, "_failed", set()), no_compiler:
        with pytest.warns(UserWarning, match="cross_entropy fails its trial .*: RuntimeError: no C compiler at all; "):
            found = SampleLoss()(logits, labels)
        assert torch.equal(found, SampleLoss(kernels=False)(logits, labels))
        assert trial._failed == {"cross_entropy"}


@interpreted
def test_random_numbers_of_training_are_not_touched() -> None:
    with patch.object(trial, "_passed", set()):
        torch.manual_seed(3)
        expected = torch.rand(3)
        torch.manual_seed(3)
        sketches()
        SampleLoss()(torch.zeros(1, 3, 30), torch.zeros(1, 3, dtype=torch.int64))
        assert torch.equal(torch.rand(3), expected)


def test_nothing_is_tried_on_a_cpu() -> None:
    found, expected = sketches()
    assert torch.equal(found, expected)
    assert not trial._passed
    assert not trial._failed
