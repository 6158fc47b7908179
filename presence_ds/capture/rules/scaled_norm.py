"""A normalisation with a scale, and perhaps a bias: y = h(x) ⊙ (w + c) + b with c 0 or 1, whatever computes it.

That is every RMSNorm (`torch.nn.RMSNorm`, those of transformers, T5's LayerNorm), every LayerNorm in a spelling of its
own, a learned scale. They differ in the name of ε, in where they round, and in whether they are written out, call
`F.rms_norm` or a fused kernel, which takes a scale of one shape alone. So the rule knows them by what they compute, in
a small trial, and does not re-write them: the module's own forward with the scale 1 − c and the bias 0 leaves h(x), and
G_i = Σ_t h(x_t) ⊙ δ_t for w and Σ_t δ_t for b.

Those that are written out keep h(x) themselves, so it is computed once, in the ordinary graph, and scaled by a rule of
its own. For the others, which keep x alone, it is computed once more in the backward.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from presence_ds.capture.attributes import attributes_as
from presence_ds.capture.attribution import trained_parameters
from presence_ds.capture.capture import full_shape
from presence_ds.capture.registry import register_where
from presence_ds.capture.rule import Rule
from presence_ds.capture.rules.general import General
from presence_ds.capture.rules.scale import Scale, factor_of
from presence_ds.capture.terms import scale

TOLERANCE = 1e-3  # of the trial, relative to the largest number; in float32, with room for kernels that round

_offsets: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()  # c of the modules that passed the trial
_in_parts: WeakKeyDictionary[nn.Module, dict[tuple[torch.dtype, torch.dtype], bool]] = WeakKeyDictionary()


def _units(module: nn.Module, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Values of the parameters with which ``module`` computes h(x)."""
    (name, weight), *bias = module.named_parameters(recurse=False)
    width = full_shape(weight)
    units = {name: torch.full(width, 1.0 - _offsets[module], dtype=dtype, device=device)}
    return units | {name: torch.zeros(width, dtype=dtype, device=device) for name, _ in bias}


def _is_scaled_norm(module: nn.Module) -> bool:
    """Whether a trial on random numbers shows that ``module`` computes what the rule is for."""
    if not trained_parameters(module):
        return False  # spares frozen ones the trial
    shapes = [full_shape(parameter) for parameter in module.parameters(recurse=False)]
    if len(shapes) not in (1, 2) or len(shapes[0]) != 1 or shapes[-1] != shapes[0] or any(module.children()):
        return False
    if any(True for _ in module.buffers()):
        return False  # which the trial might change
    for offset in (0.0, 1.0):
        _offsets[module] = offset
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the trial gives it may be nothing it is for
                if _passes(module):
                    return True
        except Exception:  # of whatever kind the forward of a module raises that takes something else
            break
    del _offsets[module]
    return False


def _passes(module: nn.Module) -> bool:
    """Whether forward and backward with some scale and bias are those with h(x), scaled and shifted."""
    if sum(p.default is p.empty for p in inspect.signature(module.forward).parameters.values()) != 1:
        return False  # a gate would need a rule of its own
    weight = next(module.parameters(recurse=False))
    device = torch.device("cpu") if weight.is_meta else weight.device
    width, generator = full_shape(weight).numel(), torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, width, generator=generator).to(device)

    def run(values: Mapping[str, Tensor], delta: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), attributes_as(module, values):
            leaf = x.clone().requires_grad_()
            output = module.forward(leaf)
        (gradient,) = torch.autograd.grad(output, leaf, delta)
        return output.detach(), gradient

    x, delta = draw(2, 3), draw(2, 3)
    units = _units(module, torch.float32, device)
    some = {name: draw() for name in units}
    factor, *shift = some.values()
    factor = factor + _offsets[module]
    output, gradient = run(some, delta.clone())
    normalized, expected = run(units, delta * factor)
    return _are_close(output, sum(shift, normalized * factor)) and _are_close(gradient, expected)


def _are_close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool(((found - expected).abs() <= TOLERANCE * expected.abs().amax()).all())


def _is_in_parts(module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether h(x) and then `Scale` are ``forward`` to the last bit, and keep no more for the backward than it does.

    That depends on where the module rounds, and so on the dtypes of its scale and of ``x``, for which it is tried once.
    """
    weight = next(module.parameters(recurse=False))
    known = _in_parts.setdefault(module, {})
    dtypes = weight.dtype, x.dtype
    if dtypes not in known:
        device = torch.device("cpu") if weight.is_meta else weight.device
        known[dtypes] = _passes_in_parts(module, forward, weight.dtype, x.dtype, device)
    return known[dtypes]


def _passes_in_parts(
    module: nn.Module,
    forward: Callable[[Tensor], Tensor],
    scale_dtype: torch.dtype,
    dtype: torch.dtype,
    device: torch.device,
) -> bool:
    units = _units(module, scale_dtype, device)
    width, generator = len(next(iter(units.values()))), torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, width, generator=generator).to(device)

    def run(values: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        kept: dict[int, int] = {}  # bytes by address; the output keeps them

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor.detach()  # itself, an output would keep its own node alive

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with torch.enable_grad(), hooks, attributes_as(module, values):
            output = forward(x)
        return output, sum(kept.values())

    x = draw(8, 8).to(dtype).requires_grad_()
    some = {name: draw().to(scale_dtype).requires_grad_() for name in units}
    output, kept = run(some)
    h, kept_for_h = run(units)
    if kept_for_h + h.nbytes > kept + h.nbytes // 4:
        return False
    with torch.no_grad():  # activation checkpointing counts what its forward saves
        factor, *shift = some.values()
        found = sum(shift, h * factor_of(factor, _offsets[module]))
        return found.dtype == output.dtype and torch.equal(found, output)


@register_where(_is_scaled_norm)
class ScaledNorm(Rule):
    """One input x [B·…, p], normalised over its last dimension; a call of another kind goes to the general rule."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x, *options = (*args, *kwargs.values())
        if options or x.shape[-1:] != full_shape(next(self.parameters())):
            return General(self.module, self.capture)(*args, **kwargs)
        forward = self.capture.forwards[self.module]
        if not _is_in_parts(self.module, forward, x):
            return super().__call__(x)
        with attributes_as(self.module, self.units()):
            h = forward(x)
        return Scale(self.module, self.capture, _offsets[self.module])(h)

    def parameters(self) -> Any:
        return self.module.parameters(recurse=False)

    def units(self) -> dict[str, Tensor]:
        """Values of the parameters with which the module computes h(x), made once for all that are alike."""
        (name, weight), *bias = self.module.named_parameters(recurse=False)
        key = ScaledNorm, name, *(other for other, _ in bias), _offsets[self.module], full_shape(weight), weight.dtype
        if key not in self.capture.shared:
            self.capture.shared[key] = _units(self.module, weight.dtype, weight.device)
        units: dict[str, Tensor] = self.capture.shared[key]
        return units

    def held(self) -> tuple[Tensor, dict[str, Tensor]]:
        return factor_of(next(self.parameters()), _offsets[self.module]), self.units()

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        return self.capture.forwards[self.module](x), (x,)

    def backward(self, held: tuple[Tensor, dict[str, Tensor]], delta: Tensor, x: Tensor) -> Tensor | None:
        factor, units = held
        weight, *bias = self.parameters()
        with torch.enable_grad(), attributes_as(self.module, units):
            leaf = x.detach().requires_grad_()
            normalized = self.capture.forwards[self.module](leaf)
        self.capture.add_summed(weight, normalized * delta)
        if bias:
            self.capture.add_summed(bias[0], delta)
        if not self.wanted[0]:
            return None
        # a product of its own in any case: some kernels leave the input gradient in the place of the output's
        (gradient,) = torch.autograd.grad(normalized, leaf, scale(delta, factor).to(normalized.dtype))
        return gradient
