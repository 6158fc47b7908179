"""What layer rules keep between forward and backward: no more than the layers themselves, also under checkpointing.

Counted is every storage that is alive, whoever refers to it: the hooks of saved tensors do not see what a rule keeps on
its context, and activation checkpointing cannot let go of that.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from presence_ds.capture import Capture, Instrumentation, Rule, rules
from presence_ds.trainer.estimate.activations import Allocations
from tests.capture.test_rules import LAYERS, VOCABULARY, WIDTH, Model
from tests.capture.test_scaled_norm import NORMS
from tests.families.models import FAMILIES
from tests.models import KINDS, tiny_model, tokens

BATCH, POSITIONS, BLOCKS = 4, 64, 3
ACTIVATION = BATCH * POSITIONS * WIDTH  # numbers


def kept(blocks: list[nn.Module], x: Tensor, reentrant: bool | None) -> int:
    """Bytes alive after the forward; ``reentrant``: the kind of activation checkpointing, None for none."""
    with Allocations("cpu") as allocations:
        for block in blocks:
            x = block(x) if reentrant is None else checkpoint(block, x, use_reentrant=reentrant)
        return allocations.now


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*LAYERS, *NORMS])
def test_rules_keep_what_the_layers_keep(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = [(LAYERS | NORMS)[name]() for _ in range(BLOCKS)]
    blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), layer, nn.Linear(WIDTH, WIDTH)).to(dtype) for layer in layers]
    x = torch.randn(BATCH, POSITIONS, WIDTH, dtype=dtype, requires_grad=True)
    model = nn.ModuleList(blocks)
    instrumentation = Instrumentation(model)
    assert not instrumentation.unattributable
    with instrumentation.recording(Capture(BATCH, instrumentation.names, x.device)):
        kept(blocks, x, None)  # what is made once is made
        recorded = [kept(blocks, x, reentrant) for reentrant in (None, False, True)]
    plain = [kept(blocks, x, reentrant) for reentrant in (None, False, True)]
    room = ACTIVATION * x.element_size() // 4
    assert all(found <= expected + room for found, expected in zip(recorded, plain, strict=True)), (recorded, plain)


def calls_in(output: Tensor) -> Iterator[tuple[Any, Rule]]:
    """The context of every call of a rule in the graph of ``output``, and the call."""
    seen: set[Any] = {None}
    pending = [output.grad_fn]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        pending.extend(following for following, _ in node.next_functions)
        if isinstance(call := getattr(node, "call", None), Rule):
            yield node, call


def test_no_context_has_tensors_beside_the_saved_ones() -> None:
    """Where a layer by itself keeps more than its rule needs, the bytes above do not show it."""
    models = {name: Model(layer(), tied=False, padding_idx=3) for name, layer in (LAYERS | NORMS).items()}
    models |= {name: FAMILIES[name].build(tied=False) for name in ("t5", "opt")}
    kinds = set()
    for name, model in models.items():
        ids = torch.randint(3, VOCABULARY, (3, 5))
        instrumentation = Instrumentation(model)
        with instrumentation.recording(Capture(3, instrumentation.names, ids.device)):
            inputs = {"input_ids": ids, "decoder_input_ids": ids} if name == "t5" else {"input_ids": ids}
            output = model(**inputs).logits if name in FAMILIES else model(ids)
        for context, call in calls_in(output):
            kinds.add(type(call))
            kept = [key for key, value in {**vars(context), **vars(call)}.items() if has_tensors(value)]
            assert not kept, (name, type(call).__name__, kept)
    assert kinds == {getattr(rules, kind) for kind in rules.__all__} - {rules.OwnForward}  # which calls other rules


def has_tensors(value: object) -> bool:
    """Beside parameters, which are the model's."""
    return any(isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter) for leaf in tree_leaves(value))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpointed_model_keeps_what_it_keeps_without_rules(kind: str, reentrant: bool) -> None:
    model = tiny_model(kind, tied=True)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    ids = tokens(4, 48)

    def kept_by_model() -> int:
        with Allocations("cpu") as allocations:
            output = model(input_ids=ids, use_cache=False)
            return allocations.now - output.logits.nbytes

    instrumentation = Instrumentation(model)
    plain = kept_by_model()
    with instrumentation.recording(Capture(4, instrumentation.names, ids.device)):
        assert kept_by_model() < 1.1 * plain
