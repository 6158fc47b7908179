"""A budget of dispatcher calls per layer: what a micro-step of one_pass costs before any kernel runs.

Every call of an aten operator takes the host one to several microseconds, which small models and fast accelerators wait
for. Counted is what one more layer adds to a micro-step: its forward, the input-gradient sweep with the scores, and the
weight-gradient sweep.

When a number here changes:
- lower: put the new number in, the layers have become cheaper;
- higher by a change of this package: print ``calls`` with and without it, find the operator that is new, and do without
  it if it is a view of the same shape, a conversion to the same dtype, a `detach` of what has no graph, or something
  that could be made once. Put the new number in only for what the layers cannot do without;
- different with another torch or transformers: look at ``plain``, the calls of the same layer in ordinary training, and
  change both.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from presence_ds.engine.scorer import Scorer
from presence_ds.engine.weight_gradients import weight_gradient_sweep
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters
from tests.models import VOCABULARY, tokens

WIDTH = 32
aten = torch.ops.aten
WITHOUT_KERNEL = {aten._unsafe_view.default, aten.empty_like.default, aten.empty.memory_format, aten.new_empty.default}


class Linears(nn.Module):
    """Tokens to logits through ``depth`` equal linear layers."""

    def __init__(self, depth: int, *, bias: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(depth))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = layer(x)
        return (self.head(x),)


def llama(depth: int) -> nn.Module:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=depth, use_cache=False, **sizes))


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda depth: Linears(depth, bias=False),
    "linear with bias": lambda depth: Linears(depth, bias=True),
    "block of a Llama": llama,
}


class Calls(TorchDispatchMode):
    """Counts the operators that are called inside, by name; of those that a GPU would launch, if ``launched``."""

    def __init__(self, *, launched: bool = False) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._launched = launched

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if not (self._launched and (func.is_view or func in WITHOUT_KERNEL)):
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def calls_of(step: Callable[[], object], *, launched: bool = False) -> Counter[str]:
    step()  # what is made once is made
    with Calls(launched=launched) as calls:
        step()
    return calls.counts


def one_pass(model: nn.Module, projection_dim: int | None, *, launched: bool = False) -> Counter[str]:
    ids = tokens(3, 11)
    influence = SelfInfluence(select_parameters(model, "all"), projection_dim, 0)
    scorer = Scorer(model, influence, SampleLoss())

    def step() -> None:
        scored = scorer.score(model.forward, (), {"input_ids": ids, "labels": ids})
        weight_gradient_sweep(scored)(torch.ones(3, dtype=torch.float64)).backward()

    return calls_of(step, launched=launched)


def ordinary(model: nn.Module, *, launched: bool = False) -> Counter[str]:
    ids, loss = tokens(3, 11), SampleLoss()
    return calls_of(lambda: loss(model(input_ids=ids)[0], ids).sum().backward(), launched=launched)


def per_layer(model: Callable[[int], nn.Module], count: Callable[[nn.Module], Counter[str]]) -> Counter[str]:
    """What the third layer adds to two; negative where it spares a call."""
    calls = count(model(3))
    calls.subtract(count(model(2)))
    return Counter({operator: number for operator, number in calls.items() if number})


@pytest.mark.parametrize(
    ("name", "plain", "projected", "exact"),
    [
        ("linear", 13, 27, 24),
        ("linear with bias", 16, 39, 34),
        ("block of a Llama", 211, 324, 299),
    ],
)
def test_a_layer_makes_as_many_calls_as_it_did(name: str, plain: int, projected: int, exact: int) -> None:
    calls = {
        "plain": per_layer(MODELS[name], ordinary),
        "projected": per_layer(MODELS[name], lambda model: one_pass(model, 4)),
        "exact": per_layer(MODELS[name], lambda model: one_pass(model, None)),
    }
    found = {kind: counts.total() for kind, counts in calls.items()}
    expected = {"plain": plain, "projected": projected, "exact": exact}
    assert found == expected, f"{found}: {calls}"


@pytest.mark.parametrize(
    ("name", "of_linears", "more"),
    [
        ("linear", 4, 4),  # two projections, their product, the weights on a factor
        ("block of a Llama", 22, 30),  # seven of them, of which three and two share an input; two norms have the rest
    ],
)
def test_a_layer_launches_no_more_than_it_did(name: str, of_linears: int, more: int) -> None:
    """Beyond a plain step; factors in float32, whose products need no conversion, as those of bf16 on a GPU."""
    launches = per_layer(MODELS[name], lambda model: one_pass(model, 4, launched=True))
    launches.subtract(per_layer(MODELS[name], lambda model: ordinary(model, launched=True)))
    norms = 2 * (name != "linear")  # each has its gradient weighted in a product, and one factor scaled
    products = launches["aten.mm.default"] + launches["aten.bmm.out"] - norms
    assert products + launches["aten.mul.out"] - norms == of_linears
    assert launches.total() == more, {operator: number for operator, number in launches.items() if number}
