"""Every layer rule against autograd: one sample at a time for the terms, the whole batch for what they sum to."""

import pytest
import torch
from deepspeed.runtime.zero.linear import zero3_linear_wrap
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm
from transformers.pytorch_utils import Conv1D

from presence_ds.capture import Capture, DenseTerm, Instrumentation, OuterTerm
from presence_ds.capture.rules import General
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


class Pair(Scale):
    """Tensors inside a tuple and a dictionary."""

    def forward(self, pair: tuple[Tensor, dict[str, Tensor]]) -> Tensor:
        return pair[0] * self.scale + torch.tanh(pair[1]["shifted"] + self.shift)


class UsePair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Pair()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x, {"shifted": 2 * x}))


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
    """A linear layer that only the general rule can serve: it uses its weight in a way of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, 2 * self.weight, self.bias)


class Wrapped(nn.Linear):
    """A linear layer with more to its forward."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(2 * super().forward(x.relu()))


class Transposed(nn.Linear):
    """A linear layer that spells its product as Falcon's does."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = x @ self.weight.T
        return hidden if self.bias is None else hidden + self.bias


class Unbiased(nn.Linear):
    """A linear layer that does not use the bias it has."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Router(nn.Module):
    """Scores of experts: a bare matrix, and several outputs, some of them indices."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = F.linear(x.reshape(-1, x.shape[-1]), self.weight).view_as(x)
        scores, chosen = logits.softmax(-1).topk(2)
        return logits, scores, chosen


class UseRouter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Router()

    def forward(self, x: Tensor) -> Tensor:
        _, scores, chosen = self.inner(x)
        return x.scatter_add(-1, chosen, scores)


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
    "general_of_nested_inputs": UsePair,
    "called_twice": Twice,
    "flattened_tokens": Flattened,
    "norm_per_head": Heads,
    "shared_with_general": Shared,
    "wrapped_linear": lambda: Wrapped(WIDTH, WIDTH),
    "transposed_linear": lambda: Transposed(WIDTH, WIDTH, bias=False),
    "transposed_linear_with_bias": lambda: Transposed(WIDTH, WIDTH),
    "router": UseRouter,
}


class Positions(nn.Embedding):
    bias = False  # of its own meaning: an embedding adds none


class Model(nn.Module):
    """Token and position embeddings, the layer under test, a head."""

    def __init__(
        self, layer: nn.Module, *, tied: bool, padding_idx: int | None = None, head: type[nn.Linear] = nn.Linear
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=padding_idx)
        self.position = Positions(32, WIDTH)
        self.layer = layer
        self.head = head(WIDTH, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.7)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)  # one row for the whole batch
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
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        gradients.append(dict(zip(parameters, found, strict=True)))
    return gradients


@pytest.mark.parametrize("name", LAYERS)
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
            torch.testing.assert_close(total, gradients[parameter], rtol=1e-5, atol=1e-6)  # HF norms are float32 inside
        picked = torch.tensor([batch_size - 1])
        alone = sum(
            term.select(picked).weighted_sum(torch.ones(1, dtype=torch.float64), torch.float64) for term in terms
        )
        torch.testing.assert_close(alone, expected[-1][parameter], rtol=1e-5, atol=1e-6)
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


def test_a_forward_of_its_own_keeps_the_cheap_rule_unless_it_uses_the_weight_otherwise() -> None:
    for layer, kind in (
        (Wrapped(WIDTH, WIDTH), OuterTerm),
        (Transposed(WIDTH, WIDTH, bias=False), OuterTerm),
        (Transposed(WIDTH, WIDTH), DenseTerm),
        (Doubled(WIDTH, WIDTH), DenseTerm),
        (Unbiased(WIDTH, WIDTH), DenseTerm),
    ):
        record = capture(Model(layer, tied=False), torch.randint(VOCABULARY, (2, 5)))
        assert [type(term) for term in record.terms[layer.weight]] == [kind]


def test_a_forward_of_its_own_under_the_linear_function_of_zero_init(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(nn.Sequential(Wrapped(WIDTH, WIDTH), UseRouter()), tied=True).double()
    ids = torch.randint(VOCABULARY, (3, 5))
    expected = per_sample_gradients(model, ids)
    monkeypatch.setattr(F, "linear", zero3_linear_wrap)  # zero.Init never takes it back
    record = capture(model, ids)
    assert F.linear is zero3_linear_wrap
    for parameter in model.layer.parameters():
        for sample, gradients in enumerate(expected):
            (term,) = record.terms[parameter]
            total = term.weighted_sum(torch.eye(3).double()[sample], torch.float64)
            torch.testing.assert_close(total, gradients[parameter])


def test_an_embedding_that_looks_up_otherwise_than_it_says_is_exact() -> None:
    class Unpadded(nn.Embedding):
        def forward(self, ids: Tensor) -> Tensor:
            return F.embedding(ids, self.weight)

    model = nn.Sequential(Unpadded(VOCABULARY, VOCABULARY, padding_idx=3)).double()
    ids = torch.tensor([[3, 4], [5, 3]])
    expected = per_sample_gradients(model, ids)
    (terms,) = capture(model, ids).terms.values()
    for sample, (gradient,) in enumerate(gradients.values() for gradients in expected):
        total = sum(term.weighted_sum(torch.eye(2).double()[sample], torch.float64) for term in terms)
        torch.testing.assert_close(total, gradient)


def test_a_norm_with_a_second_input_is_no_plain_rms_norm() -> None:
    class GatedRMSNorm(LlamaRMSNorm):
        def forward(self, x: Tensor, gate: Tensor) -> Tensor:
            return super().forward(x) * gate.sigmoid()

    norm = GatedRMSNorm(WIDTH)
    assert Instrumentation(norm).rules[norm] is General


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
