"""What all layer rules share: one autograd Function, whose backward leaves terms and returns the input's gradient."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd import Function

from presence_ds.capture.capture import Capture


class Rule:
    """One call of ``module`` while ``capture`` records: a forward and a backward in plain tensor algebra.

    Nothing that they compute may stay in the object: only what `forward` gives to be saved can be let go of, and
    computed again, by activation checkpointing.

    Attributes:
        method: what the rule runs in place of.
        holder: path in the module of the child whose parameters the rule answers for; empty: its own.
        wanted: for each input of `forward`, whether its gradient is asked for; known in `backward`.
    """

    method = "forward"
    holder = ""
    wanted: tuple[bool, ...] = ()

    def __init__(self, module: Any, capture: Capture) -> None:
        self.module, self.capture = module, capture

    def __call__(self, *inputs: Any) -> Any:
        """What the module's own method returns for ``inputs``, of which the first keeps the samples outermost."""
        self.capture.check_samples_first(self.module, inputs[0], "input")
        return self.record(*inputs)

    def record(self, *inputs: Any) -> Any:
        """Run `forward`, and `backward` when the sweep comes by."""
        self.capture.expect(*self.parameters())
        return _Recorded.apply(self.capture.anchor, self, *inputs)

    def parameters(self) -> Iterable[Tensor | None]:
        """The parameters that a call uses, each once, in the order in which their gradients are to be delivered."""
        return self.module.weight, self.bias

    @property
    def bias(self) -> Any:
        """The module's bias, or None: routers of experts have a weight alone."""
        return getattr(self.module, "bias", None)

    def held(self) -> Any:
        """Values of parameters that `backward` needs; they are cut off from what becomes of the parameters."""
        return self.module.weight.detach()

    def forward(self, *inputs: Any) -> tuple[Any, Iterable[Tensor | None]]:
        """What the module computes, and the tensors to save for `backward`."""
        raise NotImplementedError

    def backward(self, held: Any, *tensors: Any) -> Any:
        """Leave the terms of the parameters in the capture, and return the gradient of the input, or a list of them.

        ``held`` is what `held` returned; ``tensors`` are the gradient of every output, then what `forward` had saved.
        """
        raise NotImplementedError


class _Recorded(Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, call: Rule, *inputs: Any) -> Any:
        ctx.call, call.wanted = call, ctx.needs_input_grad[2:]
        output, saved = call.forward(*inputs)
        ctx.save_for_backward(*saved)
        return output

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> tuple[Any, ...]:
        # Weights are reached through the module, not saved: under ZeRO-3 only the module has them gathered now. Before
        # the saved input, for which activation checkpointing may run the module again, which gives them up afterwards.
        held = ctx.call.held()
        gradients = ctx.call.backward(held, *deltas, *ctx.saved_tensors)
        return None, None, *(gradients if isinstance(gradients, tuple | list) else (gradients,))
