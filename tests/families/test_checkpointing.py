"""Activation checkpointing runs blocks again in the sweep: no new use of a parameter, and the same scores."""

import pytest
import torch

from tests.families.models import FAMILIES
from tests.families.samples import Captured, make_batch


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2", "opt", "falcon", "t5", "umt5", "mixtral"])
def test_scores_do_not_change(name: str, reentrant: bool) -> None:
    family = FAMILIES[name]
    model = family.build(tied=True)
    batch = make_batch(3, 6, target_length=4 if family.encoder_decoder else None, padding_side="right")
    plain = Captured(model, batch)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    checkpointed = Captured(model, batch)
    torch.testing.assert_close(checkpointed.scores(), plain.scores(), rtol=1e-8, atol=1e-12)
    for parameter, terms in plain.terms.items():
        assert len(checkpointed.terms[parameter]) == len(terms)
