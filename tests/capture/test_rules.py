"""Every layer rule against autograd: one sample at a time for the terms, the whole batch for what they sum to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm
from transformers.pytorch_utils import Conv1D

from presence_ds.capture import Capture, DenseTerm, Instrumentation, OuterTerm
from presence_ds.capture.rules import general_rule
from presence_ds.errors import AttributionError
from presence_ds.influence import SelfInfluence, select_parameters

WIDTH, VOCABULARY = 6, 11


class Scale(nn.Module):
    """A module nobody wrote a rule for, with keyword inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, WIDTH))
        self.shift = nn.Parameter(torch.linspace(-1, 1, WIDTH))

    def forward(self, x: Tensor, *, gain: float = 1.0) -> tuple[Tensor, Tensor]:
        return x * self.scale * gain, torch.tanh(x + self.shift)


class UseScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Scale()

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.inner(x, gain=2.0)
        return first + second


class Twice(nn.Module):
    """One linear layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(torch.tanh(self.inner(x)))


class Flattened(nn.Module):
    """Tokens of all samples in one dimension, as some feed-forward layers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(WIDTH, WIDTH), nn.RMSNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.inner(x.view(-1, x.shape[-1]))).view_as(x)


class Heads(nn.Module):
    """A norm over the width of each head, [B, T, heads, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = LlamaRMSNorm(WIDTH // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.view(*x.shape[:-1], 2, -1)).view_as(x)


class Doubled(nn.Linear):
    """A linear layer that only the general rule can serve."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Shared(nn.Module):
    """One weight used by a layer with a rule of its own and by one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), Doubled(WIDTH, WIDTH, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


LAYERS = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "linear_no_bias": lambda: nn.Linear(WIDTH, WIDTH, bias=False),
    "conv1d": lambda: Conv1D(WIDTH, WIDTH),
    "layer_norm": lambda: nn.LayerNorm(WIDTH),
    "layer_norm_no_bias": lambda: nn.LayerNorm(WIDTH, bias=False),
    "rms_norm": lambda: nn.RMSNorm(WIDTH),
    "llama_rms_norm": lambda: LlamaRMSNorm(WIDTH),
    "gemma_rms_norm": lambda: GemmaRMSNorm(WIDTH),
    "t5_layer_norm": lambda: T5LayerNorm(WIDTH),
    "general": UseScale,
    "called_twice": Twice,
    "flattened_tokens": Flattened,
    "norm_per_head": Heads,
    "shared_with_general": Shared,
}


class Model(nn.Module):
    """Token and position embeddings, the layer under test, a head."""

    def __init__(
        self, layer: nn.Module, *, tied: bool, padding_idx: int | None = None, head: type[nn.Linear] = nn.Linear
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=padding_idx)
        self.position = nn.Embedding(32, WIDTH)
        self.layer = layer
        self.head = head(WIDTH, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.7)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1]).unsqueeze(0)  # one row for the whole batch
        return self.head(self.layer(self.embedding(ids) + self.position(positions)))


def losses_of(model: nn.Module, ids: Tensor) -> Tensor:
    return F.cross_entropy(model(ids).mT, ids.roll(1, dims=1), reduction="none").mean(1)


def capture(model: nn.Module, ids: Tensor) -> Capture:
    instrumentation = Instrumentation(model)
    record = Capture(len(ids), instrumentation.names, ids.device)
    with instrumentation.recording(record):
        torch.autograd.grad(losses_of(model, ids).sum(), record.anchor, allow_unused=True)
    return record


def per_sample_gradients(model: nn.Module, ids: Tensor) -> list[dict[Tensor, Tensor]]:
    gradients = []
    for row in ids.split(1):
        loss = losses_of(model, row).sum()
        parameters = list(model.parameters())
        gradients.append(dict(zip(parameters, torch.autograd.grad(loss, parameters), strict=True)))
    return gradients


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=8, deadline=None)
@given(
    batch_size=st.integers(1, 4),
    positions=st.integers(1, 7),
    tied=st.booleans(),
    padded=st.booleans(),
    head=st.sampled_from([nn.Linear, Doubled]),
    seed=st.integers(0, 99),
)
def test_terms_are_the_per_sample_gradients(
    name: str, batch_size: int, positions: int, tied: bool, padded: bool, head: type[nn.Linear], seed: int
) -> None:
    torch.manual_seed(seed)
    model = Model(LAYERS[name](), tied=tied, padding_idx=3 if padded else None, head=head).double()
    ids = torch.randint(VOCABULARY, (batch_size, positions))
    record = capture(model, ids)
    expected = per_sample_gradients(model, ids)
    assert set(record.terms) == set(model.parameters())
    for parameter, terms in record.terms.items():
        for sample, gradients in enumerate(expected):
            weights = torch.zeros(batch_size, dtype=torch.float64)
            weights[sample] = 1.0
            total = sum(term.weighted_sum(weights, torch.float64) for term in terms)
            torch.testing.assert_close(total, gradients[parameter], rtol=1e-5, atol=1e-7)  # HF norms are float32 inside
        picked = torch.tensor([batch_size - 1])
        alone = sum(
            term.select(picked).weighted_sum(torch.ones(1, dtype=torch.float64), torch.float64) for term in terms
        )
        torch.testing.assert_close(alone, expected[-1][parameter], rtol=1e-5, atol=1e-7)
    brute = torch.tensor([sum(g.square().sum() for g in gradients.values()) for gradients in expected]).double()
    for projection_dim in (None, 32):  # no side is wider than 32: the projected form is exact too
        scores = SelfInfluence(select_parameters(model, "all"), projection_dim, 0)(record.terms)
        torch.testing.assert_close(scores, brute, rtol=1e-5, atol=1e-12)


def test_the_model_is_plain_outside_recording() -> None:
    model = Model(nn.Linear(WIDTH, WIDTH), tied=False)
    before = dict(model.layer.__dict__)
    ids = torch.randint(VOCABULARY, (2, 5))
    capture(model, ids)
    assert model.layer.__dict__ == before
    losses_of(model, ids).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_frozen_parameters_have_no_terms_and_bias_alone_may_train() -> None:
    model = Model(nn.Linear(WIDTH, WIDTH), tied=False)
    model.layer.weight.requires_grad_(False)
    record = capture(model, torch.randint(VOCABULARY, (2, 5)))
    assert model.layer.weight not in record.terms
    assert isinstance(record.terms[model.layer.bias][0], DenseTerm)


def test_a_subclass_with_its_own_forward_does_not_inherit_the_rule() -> None:
    model = Model(Doubled(WIDTH, WIDTH), tied=False)
    assert Instrumentation(model).rules[model.layer] is general_rule
    assert Instrumentation(model).rules[model.head] is not general_rule
    record = capture(model, torch.randint(VOCABULARY, (2, 5)))
    assert not isinstance(record.terms[model.layer.weight][0], OuterTerm)


def test_a_module_that_mixes_samples_is_refused_by_name() -> None:
    class Rectangle(nn.Module):
        """A bias over positions, fed [T, T] ids and no sample dimension."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Embedding(64, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.bias(torch.arange(x.shape[1])[:, None].expand(-1, 1)).mean(0)

    model = Model(Rectangle(), tied=False)
    with pytest.raises(AttributionError, match=r"module layer\.bias \(Embedding\).*shape \[5, 1\].*3 samples"):
        capture(model, torch.randint(VOCABULARY, (3, 5)))


def test_a_forward_set_on_the_instance_is_refused_by_name() -> None:
    model = Model(nn.Linear(WIDTH, WIDTH), tied=False)
    model.layer.forward = lambda x: 2 * F.linear(x, model.layer.weight, model.layer.bias)
    with pytest.raises(AttributionError, match=r"module layer \(Linear\) has a forward set on the instance"):
        Instrumentation(model)


def test_parameters_beside_child_modules_are_refused_by_name() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(WIDTH, WIDTH)
            self.gate = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * self.gate

    with pytest.raises(AttributionError, match=r"module layer \(Mixed\) uses its parameters gate outside"):
        Instrumentation(Model(Mixed(), tied=False))
