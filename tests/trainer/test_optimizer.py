import torch
from transformers import AutoModelForCausalLM, GPT2Config

from presence_ds.trainer.optimizer import OptimizerConfig, build_optimizer


def test_vectors_are_not_decayed() -> None:
    """With all gradients zero, one step of AdamW is the weight decay alone: x (1 - lr * decay)."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40, n_positions=8))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    build_optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.5), offloaded_to_cpu=False).step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if parameter.ndim >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)


def test_every_parameter_is_trained_once() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    for config in (OptimizerConfig(), OptimizerConfig(kind="sgd")):
        groups = build_optimizer(model, config, offloaded_to_cpu=False).param_groups
        assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(p) for p in model.parameters())
