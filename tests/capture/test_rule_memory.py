"""What layer rules keep between forward and backward: no more than the layers themselves, also under checkpointing.

Counted is every storage that is alive, whoever refers to it: the hooks of saved tensors do not see what a rule keeps on
its context, and activation checkpointing cannot let go of that.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from presence_ds.capture import Capture, Instrumentation
from presence_ds.trainer.estimate.activations import Allocations
from tests.capture.test_rules import LAYERS, WIDTH
from tests.capture.test_scaled_norm import NORMS
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
