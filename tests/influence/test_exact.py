"""Exact self-influence of whole models against a batch-of-one loop and torch.func, in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from presence_ds.engine.scorer import Scorer
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters
from tests.models import KINDS, tiny_model, tokens

LAYERS = ("all", "first", ["*attn*", "lm_head.weight"])


def score(model: nn.Module, batch: dict[str, Tensor], layers: str | list[str]) -> tuple[Tensor, Tensor]:
    scorer = Scorer(model, SelfInfluence(select_parameters(model, layers), None, 0), SampleLoss())
    scored = scorer.score(model.forward, (), dict(batch))
    return scored.scores, scored.losses


def loss_of_one(model: nn.Module, ids: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    logits = model(input_ids=ids[None], attention_mask=mask[None]).logits[0, :-1]
    return F.cross_entropy(logits, labels[1:], ignore_index=-100)


def some_batch() -> dict[str, Tensor]:
    """Five sequences: whole, with −100 labels, and padded on the right."""
    ids = tokens(5, 23)
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[1, :9] = -100
    mask[2, 15:], labels[2, 15:] = 0, -100
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


@pytest.mark.parametrize("layers", LAYERS, ids=str)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_batch_of_one_loop(kind: str, tied: bool, layers: str | list[str]) -> None:
    model = tiny_model(kind, tied=tied, dtype=torch.float64)
    batch = some_batch()
    scores, losses = score(model, batch, layers)
    chosen = list(select_parameters(model, layers))
    for sample, row in enumerate(zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)):
        loss = loss_of_one(model, *row)
        expected = sum(g.square().sum() for g in torch.autograd.grad(loss, chosen))
        assert scores[sample].item() == pytest.approx(expected.item(), rel=1e-9)
        assert losses[sample].item() == pytest.approx(loss.item(), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_vmap_of_grad(kind: str) -> None:
    model = tiny_model(kind, tied=False, dtype=torch.float64)
    ids = tokens(4, 11)
    scores, _ = score(model, {"input_ids": ids, "labels": ids}, "all")
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        keywords = {"input_ids": row[None], "use_cache": False, "attention_mask": None}
        logits = functional_call(model, parameters, (), keywords).logits[0, :-1]
        return F.cross_entropy(logits, row[1:])

    gradients = vmap(grad(loss), in_dims=(None, 0))(parameters, ids)
    expected = sum(g.flatten(1).square().sum(1) for g in gradients.values())
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=0.0)


def test_long_sequences_take_the_materialised_form_and_agree() -> None:
    """T = 60 makes T²(R + C) exceed T·R·C for some layers of width 32, T = 5 for none."""
    model = tiny_model("llama", tied=True, dtype=torch.float64)
    for positions in (5, 60):
        ids = tokens(2, positions)
        scores, _ = score(model, {"input_ids": ids, "labels": ids}, "all")
        for sample in range(2):
            loss = loss_of_one(model, ids[sample], ids[sample], torch.ones_like(ids[sample]))
            expected = sum(g.square().sum() for g in torch.autograd.grad(loss, list(model.parameters())))
            assert scores[sample].item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_sample_without_targets_has_loss_and_score_zero() -> None:
    model = tiny_model("llama", tied=False)
    ids = tokens(2, 7)
    labels = ids.clone()
    labels[1] = -100
    scores, losses = score(model, {"input_ids": ids, "labels": labels}, "all")
    assert losses[1] == 0
    assert scores[1] == 0
    assert scores[0] > 0
