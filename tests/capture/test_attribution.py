"""Modules that no layer rule can attribute to samples: named with a reason, and left out on request."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from presence_ds.capture import Capture, Instrumentation, check_attribution, stray_parameters

WIDTH, VOCABULARY = 6, 11


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.gate = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.gate


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(2, WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.up[0] + x @ self.up[1]


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ParameterList([torch.ones(WIDTH)])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class Replaced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.inner.forward = lambda x: 2 * F.linear(x, self.inner.weight, self.inner.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class PositionsFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


class Selection(PositionsFirst):
    """An expert that is given the tokens of all samples that chose it."""

    def forward(self, x: Tensor) -> Tensor:
        chosen = x[..., 0] > 0
        return x.masked_scatter(chosen.unsqueeze(-1), self.inner(x[chosen]))


class Table(nn.Module):
    """Learned positions that no token enters."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _Rows()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x.shape[1])


class _Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(16, WIDTH))

    def forward(self, count: int) -> Tensor:
        return self.rows[:count]


class Model(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layer = layer
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(input_ids)))


STATIC: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "parameters beside children": (Mixed, "module layer (Mixed) uses its parameters gate outside the call of a leaf"),
    "stacked experts": (Experts, "module layer (Experts) holds stacks of matrices (up), such as the experts"),
    "parameter list": (Listed, "module layer.gates (ParameterList) uses its parameters 0 outside the call"),
    "recurrent": (Recurrent, "module layer.cell (GRU) is recurrent"),
    "replaced forward": (Replaced, "module layer.inner (Linear) has a forward set on the instance"),
    "max_norm": (lambda: nn.Sequential(nn.Identity()), "module embedding (Embedding) sets max_norm"),
}


def build(name: str) -> Model:
    torch.manual_seed(0)
    model = Model(STATIC[name][0]())
    if name == "max_norm":
        model.embedding.max_norm = 1.0
    return model


@pytest.mark.parametrize("name", STATIC)
def test_the_module_tells(name: str) -> None:
    instrumentation = Instrumentation(build(name))
    (reason,) = instrumentation.unattributable.values()
    assert reason.startswith(STATIC[name][1])
    assert "\n" not in reason


@pytest.mark.parametrize("name", STATIC)
def test_what_is_left_out_runs_as_it_is_and_the_rest_is_exact(name: str) -> None:
    model = build(name).double()
    instrumentation = Instrumentation(model)
    for module in instrumentation.unattributable:
        instrumentation.leave_out(module)
    ids = torch.randint(VOCABULARY, (3, 5))
    plain = model(ids)
    record = Capture(3, instrumentation.names, ids.device)
    left_out = [model.get_parameter(name) for name in instrumentation.left_out]
    assert left_out
    with instrumentation.recording(record):
        logits = model(ids)
        assert [model.get_parameter(name) for name in stray_parameters(logits, model)] == left_out
        torch.autograd.grad(logits.square().sum(), record.anchor, allow_unused=True)
    torch.testing.assert_close(logits, plain)
    others = [parameter for parameter in model.parameters() if not any(parameter is p for p in left_out)]
    assert set(record.terms) == set(others)
    expected = torch.autograd.grad(plain.square().sum(), others)
    for parameter, gradient in zip(others, expected, strict=True):
        total = sum(term.weighted_sum(torch.ones(3).double(), torch.float64) for term in record.terms[parameter])
        torch.testing.assert_close(total, gradient)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (PositionsFirst, "module layer.inner (Linear) was given an input of shape [7, 3, 6] for a batch of 3 x 7"),
        (Selection, "module layer.inner (Linear) was given an input of shape ["),
        (Table, "module layer.inner (_Rows) returned an output of shape [7, 6]"),
    ],
)
def test_the_trial_tells(layer: type[nn.Module], message: str) -> None:
    torch.manual_seed(0)
    model = Model(layer())
    names = Instrumentation(model).names
    reasons = check_attribution(model, names, VOCABULARY, torch.device("cpu"))
    assert list(reasons) == [model.layer.inner]
    assert reasons[model.layer.inner].startswith(message)


def test_leaving_a_module_out_leaves_its_name_out() -> None:
    model = Model(PositionsFirst())
    instrumentation = Instrumentation(model)
    assert instrumentation.left_out == []
    instrumentation.leave_out(model.layer.inner)
    assert instrumentation.left_out == ["layer.inner.weight", "layer.inner.bias"]
    assert model.layer.inner not in instrumentation.names


def test_a_weight_used_past_its_module_is_a_stray() -> None:
    class Stray(PositionsFirst):
        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) @ self.inner.weight

    model = Model(Stray())
    instrumentation = Instrumentation(model)
    ids = torch.randint(VOCABULARY, (2, 5))
    with instrumentation.recording(Capture(2, instrumentation.names, ids.device)):
        assert stray_parameters(model(ids), model) == ["layer.inner.weight"]
