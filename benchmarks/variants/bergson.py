"""bergson: projected per-sample gradients of linear layers from hooks on a backward, as its callback has them."""

from typing import Any

import deepspeed
import torch
from torch import Tensor

from benchmarks.setting import Setting
from benchmarks.variants.step import Step, relative_weights
from presence_ds.influence import SampleLoss


def bergson(setting: Setting, *, weighs: bool = True) -> Step:
    """Scores are squared norms of its k × k sketches, Rademacher ones, of linear layers alone: no embeddings, no norms.

    Args:
        weighs: whether a weighted backward over the same graph follows, for which parameters have to be whole (stages 1
            and 2). Otherwise the sketches are of the one backward of an ordinary step, and nothing is weighed, which is
            what bergson is made for.
    """
    # imported here, as it is an optional dependency
    from bergson import GradientProcessor
    from bergson.collector.gradient_collectors import StreamingGradientCollector

    class OnDevice(StreamingGradientCollector):
        """Its sketches stay where they are, and none is of a weighted backward."""

        collecting = True

        def backward_hook(self, module: torch.nn.Module, g: Tensor) -> None:
            if self.collecting:
                self.mod_grads[module._name] = self._compute_gradient(module, g)

    engine, *_ = deepspeed.initialize(**setting.deepspeed(setting.model()))
    processor = GradientProcessor({}, projection_dim=setting.projection_dim or None)
    collector: Any = OnDevice(model=engine.module, processor=processor, dtype=torch.float32)
    collector.__enter__()
    sample_loss = SampleLoss()
    parameters = list(engine.module.parameters())

    def scores() -> Tensor:
        found = [sketch.float().square().sum(1) for sketch in collector.mod_grads.values()]
        collector.mod_grads.clear()
        return torch.stack(found).sum(0)

    def step(ids: Tensor) -> Tensor:
        if not weighs:
            losses = sample_loss(engine(input_ids=ids).logits, ids)
            engine.backward(losses.mean())
            found = scores() * len(ids) ** 2  # of the mean loss
        else:
            collector.collecting = True
            # not engine(...), whose output would let DeepSpeed take the first of the two backwards for the step's
            losses = sample_loss(engine.module(input_ids=ids).logits, ids)
            torch.autograd.grad(losses.sum(), parameters, retain_graph=True)
            found = scores()
            collector.collecting = False
            engine.backward((relative_weights(found) * losses).mean())
        engine.step()
        return found

    return step
