"""Norms by what they compute: written out, by torch's function, by fused kernels, set on the class or the instance."""

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from presence_ds.capture import Capture, DenseTerm, Instrumentation
from presence_ds.capture.rules import General, ScaledNorm
from tests.capture.test_rules import VOCABULARY, WIDTH, Model, capture, per_sample_gradients


class Functional(nn.Module):
    """Calls torch's function, which takes a scale of the width alone."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.gamma, self.offset = nn.Parameter(torch.ones(WIDTH)), offset

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (WIDTH,), self.gamma + self.offset, 1e-5)


class _Kernel(Function):
    """As fused kernels are: rows of a matrix, a contiguous scale, and the gradient written over what came in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        assert weight.shape == rows.shape[1:]
        assert weight.is_contiguous()
        rstd = (rows.square().mean(1, keepdim=True) + eps).rsqrt()
        ctx.save_for_backward(rows, weight, rstd)
        ctx.offset = offset
        return (rows * rstd * (weight + offset)).view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, rstd = ctx.saved_tensors
        delta = grad_outputs[0].contiguous().view_as(rows)
        normalized = rows * rstd
        grad_weight = (delta * normalized).sum(0)
        delta.mul_(weight + ctx.offset)
        delta.sub_(normalized * (delta * normalized).mean(1, keepdim=True)).mul_(rstd)
        return delta.view_as(grad_outputs[0]), grad_weight, None, None


class Fused(nn.Module):
    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.weight, self.offset = nn.Parameter(torch.ones(WIDTH)), offset
        self.variance_epsilon = 1e-6

    def forward(self, hidden_states: Tensor) -> Tensor:
        return _Kernel.apply(hidden_states, self.weight, self.variance_epsilon, self.offset)


class WithOptions(Fused):
    """As kernels have them that can add a residual first."""

    def forward(self, x: Tensor, residual: Tensor | None = None, *, prenorm: bool = False) -> Tensor:
        return super().forward(x if residual is None else x + residual)


class AddAndNorm(nn.Module):
    """Calls one norm by keyword, with an option and without."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = WithOptions()

    def forward(self, x: Tensor) -> Tensor:
        # factors, because such a kernel spoils an output gradient that it shares
        return 2 * self.norm(x.tanh(), residual=x) + 3 * self.norm(x=x) + 4 * self.norm(x, prenorm=False)


def kernelized(norm: nn.Module, offset: float) -> nn.Module:
    """``norm`` with a kernel's forward on the instance, as Liger and the kernels of transformers put it there."""
    norm.offset, norm.variance_epsilon = offset, 1e-6
    norm.forward = types.MethodType(Fused.forward, norm)
    return norm


class OwnLayerNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,)) * self.gain + self.shift


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) * self.gamma


NORMS: dict[str, Callable[[], nn.Module]] = {
    "torch": lambda: nn.RMSNorm(WIDTH),
    "functional": Functional,
    "functional of 1 + w": lambda: Functional(1.0),
    "fused": Fused,
    "fused of 1 + w": lambda: Fused(1.0),
    "fused with options": WithOptions,
    "kernel on a Llama's": lambda: kernelized(LlamaRMSNorm(WIDTH), 0.0),
    "kernel on a Gemma's": lambda: kernelized(GemmaRMSNorm(WIDTH), 1.0),
    "kernel on torch's": lambda: kernelized(nn.RMSNorm(WIDTH), 0.0),
    "layer norm of its own": OwnLayerNorm,
    "learned scale": LayerScale,
}


@pytest.mark.parametrize("name", NORMS)
def test_terms_are_the_per_sample_gradients(name: str) -> None:
    torch.manual_seed(0)
    model = Model(nn.Sequential(NORMS[name](), nn.Linear(WIDTH, WIDTH), NORMS[name]()), tied=True).double()
    norms = [model.layer[0], model.layer[2]]
    assert [Instrumentation(model).rules[norm] for norm in norms] == [ScaledNorm] * 2
    ids = torch.randint(VOCABULARY, (3, 5))
    expected = per_sample_gradients(model, ids)
    before = [dict(norm.__dict__) for norm in norms]
    record = capture(model, ids)
    assert [norm.__dict__ for norm in norms] == before  # a kernel set on the instance is there again
    assert set(record.terms) == set(model.parameters())
    for parameter, terms in record.terms.items():
        for sample, gradients in enumerate(expected):
            total = sum(term.weighted_sum(torch.eye(3).double()[sample], torch.float64) for term in terms)
            torch.testing.assert_close(total, gradients[parameter], rtol=1e-5, atol=1e-7)


def test_calls_with_options_add_up_with_those_without() -> None:
    torch.manual_seed(0)
    model = Model(AddAndNorm(), tied=True).double()
    norm = model.layer.norm
    assert Instrumentation(model).rules[norm] is ScaledNorm
    ids = torch.randint(VOCABULARY, (3, 5))
    terms = capture(model, ids).terms[norm.weight]
    assert len(terms) == 3
    total = sum(term.grads for term in terms)
    for grads, gradients in zip(total, per_sample_gradients(model, ids), strict=True):
        torch.testing.assert_close(grads, gradients[norm.weight])


def runs(monkeypatch: pytest.MonkeyPatch, norm: nn.Module, x: Tensor) -> tuple[int, list[Tensor]]:
    """How often one recorded step runs a norm's forward, and what the step leaves: output, gradient, term."""
    instrumentation = Instrumentation(norm)
    record = Capture(len(x), instrumentation.names, x.device)
    calls = 0
    forward = type(norm).forward

    def counted(self: nn.Module, hidden: Tensor) -> Tensor:
        nonlocal calls
        calls += hidden.shape == x.shape  # the trial has another
        return forward(self, hidden)

    monkeypatch.setattr(type(norm), "forward", counted)
    leaf = x.clone().requires_grad_()
    with instrumentation.recording(record):
        output = norm(leaf)
        (gradient,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
    monkeypatch.undo()
    ((term,),) = record.terms.values()
    return calls, [output, gradient, term.grads]


WRITTEN_OUT = {"llama": LlamaRMSNorm, "gemma": GemmaRMSNorm, "t5": T5LayerNorm}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [*WRITTEN_OUT, "torch", "fused"])
def test_what_is_written_out_runs_once_where_that_gives_the_same_numbers(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma's rounds after its scale alone; torch's in narrow dtypes, and kernels, do not keep h(x)."""
    torch.manual_seed(0)
    norm = (WRITTEN_OUT[name](WIDTH) if name in WRITTEN_OUT else NORMS[name]()).to(dtype)
    (weight,) = norm.parameters()
    nn.init.normal_(weight)
    x = torch.randn(3, 5, WIDTH).to(dtype)
    calls, (output, gradient, grads) = runs(monkeypatch, norm, x)
    once = name in ("llama", "t5") or (name != "fused" and dtype == torch.float32)
    assert calls == (1 if once else 2)
    leaf = x.clone().requires_grad_()
    expected = norm(leaf)
    assert output.dtype == expected.dtype
    assert torch.equal(output, expected)
    wanted, *_ = torch.autograd.grad(expected, [leaf], torch.ones_like(expected))
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(gradient, wanted, **tolerance)
    for sample, found in zip(x, grads, strict=True):
        reference = type(norm)(WIDTH) if name in WRITTEN_OUT or name == "torch" else NORMS[name]()
        reference.load_state_dict(norm.state_dict())
        reference.float()(sample.float()).sum().backward()
        torch.testing.assert_close(found, next(reference.parameters()).grad, **tolerance)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_first_call_inside_activation_checkpointing_is_computed_again(reentrant: bool) -> None:
    """Which counts what the forward saved, and that is when the trial is made."""
    norm = LlamaRMSNorm(WIDTH)
    x = torch.randn(3, 5, WIDTH)
    instrumentation = Instrumentation(norm)
    record = Capture(3, instrumentation.names, x.device)
    leaf = x.clone().requires_grad_()
    with instrumentation.recording(record):
        output = checkpoint(norm, leaf, use_reentrant=reentrant)
        record.sweeping = True
        output.sum().backward()
    wanted = x.clone().requires_grad_()
    h = norm(wanted)
    h.sum().backward()
    torch.testing.assert_close(leaf.grad, wanted.grad)
    ((term,),) = record.terms.values()
    torch.testing.assert_close(term.grads, h.detach().sum(1))


class Gate(LayerScale):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.tanh()


class Shift(LayerScale):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma


class Counting(LayerScale):
    """A forward that leaves a trace in the module."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.gamma


class Detached(LayerScale):
    """Without a gradient for its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach() * self.gamma


class OneNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@pytest.mark.parametrize("layer", [Gate, Shift, Counting, Detached, OneNumber, lambda: nn.PReLU(WIDTH)])
def test_what_computes_something_else_takes_the_general_rule(layer: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = Model(layer(), tied=True).double()
    rule = Instrumentation(model).rules[model.layer]
    assert rule is (ScaledNorm if isinstance(model.layer, OneNumber) else General)  # which sees it by the input
    assert not isinstance(model.layer, Counting) or model.layer.calls == 0
    ids = torch.randint(VOCABULARY, (3, WIDTH))  # the channels of PReLU are the second dimension
    expected = per_sample_gradients(model, ids)
    (parameter,) = model.layer.parameters()
    (term,) = capture(model, ids).terms[parameter]
    assert isinstance(term, DenseTerm)
    for grads, gradients in zip(term.grads, expected, strict=True):
        torch.testing.assert_close(grads, gradients[parameter])


def test_a_kernel_of_another_kind_on_the_instance_is_refused() -> None:
    norm = LlamaRMSNorm(WIDTH)
    norm.forward = lambda x: x * norm.weight.tanh()
    (reason,) = Instrumentation(norm).unattributable.values()
    assert "has a forward set on the instance" in reason
