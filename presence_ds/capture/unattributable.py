"""Which modules' parameters no layer rule can attribute to samples, told by the module alone, and why."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from presence_ds.capture.capture import full_shape


def reason_against(module: nn.Module, name: str, own: Mapping[str, Tensor], has_rule: bool) -> str | None:
    """Why the parameters ``own`` of ``module`` cannot be attributed to samples; None if a layer rule can do it.

    Args:
        module: holds parameters.
        name: its path in the model.
        own: its trainable parameters by name, without those of its children.
        has_rule: whether a rule is written for its kind.
    """
    who = f"module {name or 'the model itself'} ({type(module).__name__})"
    listed = ", ".join(own)
    if "forward" in module.__dict__ and not has_rule:
        return (
            f"{who} has a forward set on the instance, which the layer rules would pass over: define it in the "
            f"module's class"
        )
    if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.scale_grad_by_freq or module.sparse):
        return f"{who} sets max_norm, scale_grad_by_freq or sparse, which per-sample gradients do not have"
    if isinstance(module, nn.RNNBase):  # its kernel reads a list of its own, past the attributes a rule can replace
        return f"{who} is recurrent, for which no layer rule is written: its gradient cannot be attributed to samples"
    if has_rule:
        return None
    stacks = [key for key, value in own.items() if sum(size > 1 for size in full_shape(value)) > 2]
    if stacks and not isinstance(module, _ConvNd):
        return (
            f"{who} holds stacks of matrices ({', '.join(stacks)}), such as the experts of a mixture: their gradient "
            f"cannot be attributed to samples at the cost of a layer"
        )
    if any(module.children()) or isinstance(module, nn.ParameterList | nn.ParameterDict):
        return (
            f"{who} uses its parameters {listed} outside the call of a leaf module: their gradient cannot be "
            f"attributed to samples"
        )
    return None
