"""Finds parameters that reach the loss outside every instrumented call, whose gradient one_pass would silently lose."""

from torch import Tensor, nn


def stray_parameters(output: Tensor, model: nn.Module) -> list[str]:
    """Names of the trainable parameters that are leaves of the autograd graph of ``output``, in the model's order.

    Instrumented calls keep their parameters out of the graph, so a parameter that is found there was used in another
    way. What re-entrant activation checkpointing hides from the graph is not seen.

    Args:
        output: what the instrumented forward returned.
        model: gives the names; a tied parameter has the first of its names.
    """
    leaves, seen, pending = set(), set(), [output.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaves.add(getattr(node, "variable", None))
        pending.extend(next_node for next_node, _ in node.next_functions)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter in leaves]
