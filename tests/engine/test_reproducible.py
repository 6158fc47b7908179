"""No operation of scoring and weighing adds in an order that a GPU is free to choose."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import T5ForConditionalGeneration

from presence_ds.engine.objective import Objective, weighted_mean_loss
from presence_ds.engine.scorer import Scorer
from presence_ds.engine.weight_gradients import weight_gradient_sweep
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters
from presence_ds.influence.projected import JointProjection
from tests.models import t5_config, tiny_model, tokens

# What torch.use_deterministic_algorithms replaces, or refuses, on a GPU, among operations of this kind.
SCATTERED = {
    "index_add", "index_add_", "index_put", "index_put_", "_index_put_impl_", "put", "put_", "index_copy",
    "index_copy_", "index_reduce", "index_reduce_", "scatter", "scatter_", "scatter_add", "scatter_add_",
    "scatter_reduce", "scatter_reduce_", "bincount", "histc", "cumsum", "cumsum_", "_embedding_bag",
    "_embedding_bag_dense_backward", "nll_loss_forward", "nll_loss_backward",
}  # fmt: skip


class Scattered(TorchDispatchMode):
    """Notes the operations inside that add, or write, in no certain order on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in SCATTERED and not self._is_certain(name, args, result):
            self.found.append(name)
        return result

    @staticmethod
    def _is_certain(name: str, args: Any, result: Any) -> bool:
        if name.startswith("cumsum"):
            return not result.is_floating_point()
        return name.startswith("scatter") and args[2].shape[args[1]] == 1  # no two go to one place


def tiny_t5() -> nn.Module:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(t5_config(layers=1)).train()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize(
    ("k", "keeps_sketches"), [(None, False), (4, False), (4, True)], ids=["exact", "projected", "joint"]
)
def test_scores_and_gradients_are_added_in_one_order(k: int | None, keeps_sketches: bool, kind: str) -> None:
    model = tiny_t5() if kind == "t5" else tiny_model(kind, tied=kind == "gpt2")
    influence = SelfInfluence(select_parameters(model, "all"), k, 0, keeps_sketches=keeps_sketches)
    loss = SampleLoss(shifted=kind == "t5")
    objective = Objective(model, loss)
    scorer = Scorer(model, influence, loss, features=16 if keeps_sketches else None, sketches=keeps_sketches)
    batch = {"input_ids": tokens(3, 9), "labels": tokens(3, 9)}
    weights = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    with Scattered() as scattered:
        scored = scorer.score(model.forward, (), batch)
        weight_gradient_sweep(scored)(weights).backward()
        losses, _ = objective(model.forward, (), batch)
        weighted_mean_loss(losses, weights, len(losses)).backward()
    assert (scored.features is not None) == (scored.sketches is not None) == keeps_sketches
    assert scattered.found == []


@pytest.mark.parametrize("sizes", [{"a": 3}, {"a": 64}, {"a": 500, "b": 7, "c": 293}, {"a": 129, "b": 128}])
def test_a_joint_projection_fills_its_places_evenly(sizes: dict[str, int]) -> None:
    elements = torch.eye(sum(sizes.values()))
    places = JointProjection(sizes, 64, 0)(elements)
    assert torch.equal(places.abs().sum(1), torch.ones(len(elements)))  # every element goes to one place, whole
    held = places.abs().sum(0)
    assert held.max() - held.min() <= 1
    assert len(sizes) == 1 or not torch.equal(JointProjection(sizes, 64, 1)(elements), places)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_joint_projection_is_added_in_pairs(dtype: torch.dtype) -> None:
    """The sums by hand: halves of the table on each other, until one row is left; equal to the bit."""
    sizes = {"a": 700, "b": 41}
    sketches = torch.randn(5, 741, dtype=dtype, generator=torch.Generator().manual_seed(0))
    joint = JointProjection(sizes, 64, 3)
    table = _table(joint, sketches)
    while len(table) > 1:
        kept = (len(table) + 1) // 2
        table = [row + table[kept + i] if kept + i < len(table) else row for i, row in enumerate(table[:kept])]
    found = joint(sketches)
    assert torch.equal(found, table[0].float())
    assert torch.equal(joint(sketches[3:4]), found[3:4])  # whatever else is in the batch


def _table(joint: JointProjection, sketches: Tensor) -> list[Tensor]:
    order, signs = joint._order.view(-1, joint.width), joint._signs.view(-1, joint.width)
    return [sketches[:, places] * sign.to(sketches.dtype) for places, sign in zip(order, signs, strict=True)]
