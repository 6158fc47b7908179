"""What a model is told of the documents in its samples, and whether it heeds it."""

from functools import partial, wraps
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)
from transformers.masking_utils import flash_attention_mask

from presence_ds.errors import ConfigError
from presence_ds.trainer.building.document_mask import check_document_mask, document_inputs
from tests.models import KINDS, VOCABULARY, engine_of, tiny_model, tokens

SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, intermediate_size=48))


def mistral() -> PreTrainedModel:
    """With a window shorter than its documents."""
    sizes = SIZES | {"num_key_value_heads": 2, "intermediate_size": 48, "sliding_window": 3}
    return MistralForCausalLM(MistralConfig(**sizes))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [*(partial(tiny_model, kind, tied=True) for kind in KINDS), neox, mistral])
def test_a_document_does_not_see_the_others(make: Any, attention: str) -> None:
    """Its logits are those that it has alone, whatever else is in the row, up to the padding."""
    model = make()
    model.set_attn_implementation(attention)
    model.train()
    engine = engine_of(model)
    check_document_mask(engine)
    assert model.training
    documents = [tokens(1, size, seed=size) for size in (5, 1, 9, 3)]
    position_ids = torch.cat([torch.arange(ids.shape[1]) for ids in documents])[None]
    inputs = document_inputs(model.eval(), torch.cat([position_ids, position_ids.flip(0)]))
    with torch.no_grad():
        logits = model(torch.cat([torch.cat(documents, 1), tokens(1, 18)]), **inputs, use_cache=False).logits[:1]
        for ids, part in zip(documents, logits.split([5, 1, 9, 3], dim=1), strict=True):
            torch.testing.assert_close(part, model(ids).logits, atol=2e-6, rtol=1e-5)


def test_a_model_that_looks_back_is_refused() -> None:
    """One that takes positions, and does not heed them, as some families of transformers do not."""
    model = tiny_model("llama", tied=True)
    forward = model.forward

    @wraps(forward)
    def heedless(*inputs: Any, position_ids: Tensor | None = None, **others: Any) -> Any:
        return forward(*inputs, **others)

    model.forward = heedless
    with pytest.raises(ConfigError, match=r"^data\.document_mask is true, and LlamaForCausalLM lets the documents"):
        check_document_mask(engine_of(model))


def varlen_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
    """What a flash kernel computes of the lengths that it is told, one document at a time; [B, T, heads, width]."""
    starts, batch = options["cu_seq_lens_q"].tolist(), len(query)
    assert options["max_length_q"] == max(b - a for a, b in pairwise(starts))
    assert torch.equal(options["cu_seq_lens_k"], options["cu_seq_lens_q"])
    assert mask is None
    groups = query.shape[1] // key.shape[1]
    flat = [x.transpose(1, 2).flatten(0, 1).transpose(0, 1) for x in (query, key, value)]
    q, k, v = flat[0], *(x.repeat_interleave(groups, 0) for x in flat[1:])
    parts = [
        F.scaled_dot_product_attention(q[None, :, a:b], k[None, :, a:b], v[None, :, a:b], is_causal=True)
        for a, b in pairwise(starts)
    ]
    found = torch.cat(parts, dim=2)[0].transpose(0, 1)
    return found.view(batch, -1, *found.shape[1:]), None


def test_flash_attention_is_told_the_lengths_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a batch of several samples, where it does not look at positions."""
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_of_the_tests", varlen_attention)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "flash_of_the_tests", flash_attention_mask)
    model = tiny_model("llama", tied=True)
    expected = tiny_model("llama", tied=True)
    model.config._attn_implementation = "flash_of_the_tests"
    position_ids = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]])
    inputs = document_inputs(model, position_ids)
    assert inputs["cu_seq_lens_q"].tolist() == [0, 3, 5, 6, 7, 12]
    with torch.no_grad():
        found = model(tokens(2, 6), **inputs, use_cache=False).logits
        torch.testing.assert_close(found, expected(tokens(2, 6), position_ids=position_ids, use_cache=False).logits)
    check_document_mask(engine_of(model))
