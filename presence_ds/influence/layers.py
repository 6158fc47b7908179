"""Which parameters enter the self-influence: the set K of equation 3."""

from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from presence_ds.errors import ConfigError


def select_parameters(model: nn.Module, layers: str | list[str]) -> dict[Tensor, str]:
    """The trainable parameters that ``layers`` names, each with its name in ``model``.

    Args:
        layers: "all"; "first", the first block of every outermost `torch.nn.ModuleList` (the paper's first encoder and
            first decoder layer); or shell-style patterns on parameter names. A tied parameter is chosen by any of
            its names.

    Raises:
        ConfigError: nothing is chosen, or a pattern matches no trainable parameter.
    """
    names: dict[Tensor, str] = {
        parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    if layers == "all":
        return names
    patterns = _first_blocks(model) if layers == "first" else list(layers)
    chosen: set[Tensor] = set()
    for pattern in patterns:
        found = {
            parameter
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if parameter.requires_grad and fnmatchcase(name, pattern)
        }
        if not found:
            example = next(iter(names.values()))
            raise ConfigError(f'presence.layers: "{pattern}" matches no trainable parameter; one is "{example}"')
        chosen |= found
    if not chosen:
        raise ConfigError(
            'presence.layers is "first", but the model has no stack of blocks (torch.nn.ModuleList): '
            'give parameter-name patterns or "all"'
        )
    return {parameter: name for parameter, name in names.items() if parameter in chosen}


def vocabulary_parameters(model: nn.Module) -> list[Tensor]:
    """Parameters of input embeddings and output head, as transformers' models tell them; none of other models."""
    parts: list[Any] = [
        getattr(model, name, lambda: None)() for name in ("get_input_embeddings", "get_output_embeddings")
    ]
    return [parameter for part in parts if part is not None for parameter in part.parameters()]


def _first_blocks(model: nn.Module) -> list[str]:
    stacks = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)]
    outermost = [name for name in stacks if not any(name.startswith(f"{other}.") for other in stacks)]
    return [f"{name}.0.*" for name in outermost]
