"""Granularity document: every document of a packed row as if it stood alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from presence_ds.capture import Documents
from presence_ds.engine.batch import DOCUMENTS, is_encoder_decoder, number_documents
from presence_ds.engine.objective import Objective, weighted_mean_loss
from presence_ds.engine.scorer import Scored, Scorer
from presence_ds.engine.weight_gradients import weight_gradient_sweep
from presence_ds.errors import AttributionError
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters
from tests.engine.documents import KINDS, LENGTHS, Step, build, compare, one_at_a_time, pack, refusals
from tests.ranks import Ranks

CASES = [(kind, tied) for kind in KINDS for tied in (True, False)]


def numbered(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Any]:
    batch = dict(batch)
    indices = batch.pop("document_indices"), batch.pop("decoder_document_indices", None)
    return batch | {DOCUMENTS: number_documents(model, *indices, torch.device("cpu")), "use_cache": False}


def scored(model: nn.Module, batch: dict[str, Tensor], dim: int | None = None, **options: Any) -> Scored:
    influence = SelfInfluence(select_parameters(model, "all"), dim, 0, keeps_sketches=bool(options))
    loss = SampleLoss(shifted=is_encoder_decoder(model))
    scorer = Scorer(model, influence, loss, granularity="document", **options)
    return scorer.score(model.forward, (), numbered(model, batch))


def norms(gradients: list[list[Tensor]]) -> Tensor:
    return torch.stack([sum(part.square().sum() for part in one) for one in gradients])  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "tied"), [*CASES, ("gated", True), ("qwen3", False)])
def test_losses_and_scores_are_exact(kind: str, tied: bool) -> None:
    model, packed = build(kind, tied=tied), pack(kind)
    losses, gradients = one_at_a_time(model, packed, kind)
    found = scored(model, packed.batch)
    room = 1e5 if kind == "qwen3" else 1.0  # its norm rounds to float32
    torch.testing.assert_close(found.losses, losses, rtol=1e-12 * room, atol=1e-12)
    torch.testing.assert_close(found.scores, norms(gradients), rtol=1e-9 * room, atol=1e-12)
    assert (found.targets == 0).tolist() == [index == 1 for index in range(sum(map(len, LENGTHS)))]
    assert found.documents is not None
    assert found.documents.rows.tolist() == packed.rows


@pytest.mark.parametrize(("kind", "tied"), CASES)
def test_sketches_are_those_of_each_document_alone(kind: str, tied: bool) -> None:
    model, packed = build(kind, tied=tied), pack(kind)
    found = scored(model, packed.batch, 4, sketches=True)
    assert found.sketches is not None
    for index, document in enumerate(packed.alone):
        single = {"document_indices": torch.zeros_like(document["input_ids"])}
        if kind == "t5":
            single["decoder_document_indices"] = torch.zeros_like(document["labels"])
        own = scored(model, document | single, 4, sketches=True)
        torch.testing.assert_close(found.scores[index : index + 1], own.scores, rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(found.sketches[index], own.sketches[0], rtol=1e-4, atol=1e-7)


WEIGHTS = torch.tensor([0.3, 0.0, 2.0, 1.0, 0.7, 0.0, 1.4], dtype=torch.float64)


@pytest.mark.parametrize("strategy", ["one_pass", "two_pass"])
@pytest.mark.parametrize(("kind", "tied"), CASES)
def test_gradients_are_weighed_by_document(kind: str, tied: bool, strategy: str) -> None:
    model, packed = build(kind, tied=tied), pack(kind)
    losses, gradients = one_at_a_time(model, packed, kind)
    if strategy == "one_pass":
        result = weight_gradient_sweep(scored(model, packed.batch))(WEIGHTS)
    else:
        objective = Objective(model, SampleLoss(shifted=kind == "t5"))
        own, _ = objective(model.forward, (), numbered(model, packed.batch))
        result = weighted_mean_loss(own, WEIGHTS, len(LENGTHS))
    result.backward()
    torch.testing.assert_close(result.detach(), (WEIGHTS * losses).sum() / WEIGHTS.sum())
    for index, parameter in enumerate(model.parameters()):
        expected = sum(weight * one[index] for weight, one in zip(WEIGHTS, gradients, strict=True)) / len(LENGTHS)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-13)


STEPS = [
    Step("llama"),
    Step("llama", accumulation_steps=2, stage=3),
    Step("gpt2", strategy="two_pass", accumulation_steps=2, stage=3, checkpointing=True),
    Step("gpt2", presence={"signal": "loss"}),
    Step("gpt2", presence={"alignment": True}, stage=1),
    Step("llama", strategy="two_pass", accumulation_steps=2, presence={"alignment": True, "signal": "loss"}),
    Step("t5", strategy="two_pass"),
    Step("llama", poison=True, stage=3),
    Step("gpt2", poison=True, strategy="two_pass", accumulation_steps=2),
    Step("gpt2", poison=True, presence={"signal": "loss"}),
    Step("t5", accumulation_steps=2, presence={"alignment": True}),
]
LIMITS = {"weights": 2e-5, "update": 1e-4, "alignments": 1e-4, "sources": 1e-4}


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_step_is_weighed_over_all_documents(step: Step, two_ranks: Ranks) -> None:
    """Ranks and micro-steps have different numbers of them."""
    for worst in two_ranks.run(compare, step):
        assert all(value < LIMITS[name] for name, value in worst.items()), worst
        assert ("alignments" in worst) == step.presence.get("alignment", False)


def test_documents_that_see_each_other_are_refused(one_rank: Ranks) -> None:
    """Positions that go on over the ends of documents, and a batch that does not say where they are."""
    (messages,) = one_rank.run(refusals)
    assert messages["together"].startswith("presence.granularity is document, and GPT2LMHeadModel lets the documents")
    assert messages["missing"].startswith("presence.granularity is document, and the batch has no document_indices")
    assert messages["numbers"].startswith("document_indices are from -1 to 70: give the documents of every row numbers")


@pytest.mark.parametrize("dim", [None, 2])
def test_rows_and_positions_together_with_a_dimension_between(dim: int | None) -> None:
    """Heads of a layer that is given [B · T, heads, C] are dealt out as those of [B, T, heads, C]."""

    class Heads(nn.Module):
        def __init__(self, *flattened: int) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.inside, self.head = nn.Embedding(97, 8), nn.Linear(4, 4), nn.Linear(8, 97)
            self.flattened = flattened

        def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
            x = self.embedding(input_ids)
            return (self.head(self.inside(x.view(*self.flattened, 2, 4)).view(x.shape)),)

    rows, length = 2, 6
    ids = torch.arange(rows * length).view(rows, length)
    batch = {"input_ids": ids, "labels": ids, "document_indices": (ids % length) // 3}
    apart, together = (scored(Heads(*sizes), batch, dim).scores for sizes in ((rows, length), (rows * length,)))
    torch.testing.assert_close(together, apart)


def test_positions_that_two_dimensions_might_be() -> None:
    indices = torch.zeros(2, 5, dtype=torch.int64)
    documents = Documents([indices], "cpu")
    assert documents.places(torch.Size([2, 5, 4])).ids.shape == (2, 20)
    assert documents.places(torch.Size([2, 4, 5])).ids.shape == (2, 20)
    assert documents.places(torch.Size([10])).ids.shape == (2, 5)
    assert documents.places(torch.Size([10, 4])).ids.shape == (2, 20)
    for shape in ([2, 5, 5], [2, 4], [3, 5]):
        with pytest.raises(AttributionError, match="which of them are of one document cannot be told"):
            documents.places(torch.Size(shape))
