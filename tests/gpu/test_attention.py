"""Scores in bf16 by the attention implementations that there are, flash attention among them where it is installed."""

import importlib.util

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.engine.behaviour import start
from tests.gpu.device import DEVICE, ON_GPU

FLASH = pytest.mark.skipif(
    not (ON_GPU and importlib.util.find_spec("flash_attn")), reason="flash_attn is not installed, or there is no GPU"
)


def llama(implementation: str) -> LlamaForCausalLM:
    """Of head width 64, the same weights always."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        attn_implementation=implementation,
    )
    return LlamaForCausalLM(config)


@pytest.mark.usefixtures("rank")
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("implementation", ["sdpa", pytest.param("flash_attention_2", marks=FLASH)])
def test_scores_do_not_depend_on_the_implementation(implementation: str, stage: int) -> None:
    ids = torch.randint(97, (3, 48), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    scores = {}
    for one in ("eager", implementation):
        engine = start(llama(one), stage=stage, bf16={"enabled": True}, presence={"estimator": "exact"})
        engine.backward(engine(input_ids=ids, labels=ids))
        engine.step()
        scores[one] = engine.presence.scores
        engine.destroy()
    torch.testing.assert_close(scores[implementation], scores["eager"], rtol=5e-2, atol=0.0)
