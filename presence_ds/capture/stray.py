"""Finds parameters that reach the loss outside every instrumented call, whose gradient one_pass would silently lose."""

from torch import Tensor, nn

from presence_ds.errors import AttributionError


def check_no_stray_parameters(output: Tensor, names: dict[nn.Module, str]) -> None:
    """Raise `AttributionError` if a parameter is a leaf of the autograd graph of ``output``.

    Instrumented calls keep their parameters out of the graph, so a parameter that is found there was used in another
    way.

    Args:
        output: what the instrumented forward returned.
        names: path of every instrumented module, to name the parameter.
    """
    owners = {
        parameter: (module, f"{path}.{name}")
        for module, path in names.items()
        for name, parameter in module.named_parameters(recurse=False)
    }
    seen, pending = set(), [output.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        parameter = getattr(node, "variable", None)
        if isinstance(parameter, nn.Parameter) and parameter in owners:
            module, name = owners[parameter]
            raise AttributionError(
                f"parameter {name} ({type(module).__name__}) is used outside the call of its module: its gradient "
                f"cannot be attributed to samples, and strategy one_pass cannot train it; call the module, or freeze it"
            )
        pending.extend(next_node for next_node, _ in node.next_functions)
