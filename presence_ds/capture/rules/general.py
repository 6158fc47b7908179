"""Any other leaf module: its own forward, repeated sample by sample in the backward pass.

Costs the module's forward once more, its backward once more for every document of a sample that there are several of,
and keeps the gradients of all of them; meant for small modules (a learned scale, a gate, a convolution). The module
must treat samples independently and draw no random numbers.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten  # private, and what torch's own modes use

from presence_ds.capture.attributes import attributes_as
from presence_ds.capture.rule import Rule


class General(Rule):
    """Tensors among the inputs whose first dimension divides into B samples are split; outputs must divide so."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inputs, self._tree = tree_flatten((args, kwargs))  # also those in tuples and dictionaries
        self._others = [None if isinstance(value, Tensor) else value for value in inputs]
        return self.record(*inputs)

    def parameters(self) -> Any:
        return self.module.parameters(recurse=False)

    def held(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.module.named_parameters(recurse=False)}

    def forward(self, *inputs: Any) -> tuple[Any, list[Tensor | None]]:
        output = self._run(inputs)
        for value in _as_tuple(output):
            if not isinstance(value, Tensor):
                raise TypeError(f"{type(self.module).__name__} returned a {type(value).__name__}")
            self.capture.check_samples_first(self.module, value, "output")
        return output, [value if isinstance(value, Tensor) else None for value in inputs]

    def backward(self, held: dict[str, Tensor], *tensors: Any) -> list[Tensor | None]:
        batch_size, others = self.capture.batch_size, self._others
        count = len(tensors) - len(others)
        deltas, saved = tensors[:count], tensors[count:]
        inputs: list[Any] = [other if value is None else value for value, other in zip(saved, others, strict=True)]
        wanted = [index for index, is_wanted in enumerate(self.wanted) if is_wanted]
        gradients = {index: torch.zeros_like(inputs[index]) for index in wanted}
        parameters = {name: p for name, p in self.module.named_parameters(recurse=False) if p.requires_grad}
        leaves = {name: held[name].detach().requires_grad_() for name in parameters}
        by_sample = []
        for sample in range(batch_size):
            rows = [_rows(value, sample, batch_size) for value in inputs]
            for index in wanted:
                rows[index] = rows[index].detach().requires_grad_()
            with torch.enable_grad(), attributes_as(self.module, held | leaves):
                outputs = _as_tuple(self._run(rows))
            differentiable = [index for index, value in enumerate(outputs) if value.requires_grad]
            for part in self._parts([deltas[index] for index in differentiable], sample):
                found = torch.autograd.grad(
                    [outputs[index] for index in differentiable],
                    [*leaves.values(), *(rows[index] for index in wanted)],
                    part,
                    allow_unused=True,
                    materialize_grads=True,
                    retain_graph=self.capture.documents is not None,
                )
                by_sample.append(found[: len(leaves)])
                for index, gradient in zip(wanted, found[len(leaves) :], strict=True):
                    _rows(gradients[index], sample, batch_size).add_(gradient)
        for parameter, grads in zip(parameters.values(), zip(*by_sample, strict=True), strict=True):
            self.capture.add_dense(parameter, torch.stack(grads))
        return [gradients.get(index) for index in range(len(inputs))]

    def _parts(self, deltas: list[Tensor], sample: int) -> Iterator[list[Tensor]]:
        """The output gradients of a sample, or those of each of its documents, with zeros elsewhere."""
        documents, batch_size = self.capture.documents, self.capture.batch_size
        rows = [_rows(delta, sample, batch_size) for delta in deltas]
        if documents is None:
            yield rows
            return
        numbers = [_rows(documents.like(delta), sample, batch_size) for delta in deltas]
        for document in documents.of_row(sample):
            yield [torch.where(ids == document, row, 0.0) for ids, row in zip(numbers, rows, strict=True)]

    def _run(self, inputs: Iterable[Any]) -> Any:
        args, kwargs = tree_unflatten(inputs, self._tree)
        return self.capture.forwards[self.module](*args, **kwargs)


def _as_tuple(output: Any) -> tuple[Any, ...]:
    return output if isinstance(output, tuple) else (output,)


def _rows(value: Any, sample: int, batch_size: int) -> Any:
    """The rows of one sample; inputs that are no tensors or are shared by all samples pass whole."""
    if not isinstance(value, Tensor) or value.dim() == 0 or value.shape[0] % batch_size:
        return value
    size = value.shape[0] // batch_size
    return value[sample * size : (sample + 1) * size]
