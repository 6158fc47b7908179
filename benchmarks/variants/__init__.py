"""Ways to take a training step, one file for those that belong together."""

from collections.abc import Callable
from functools import partial

from benchmarks.setting import Setting
from benchmarks.variants.bergson import bergson
from benchmarks.variants.dattri import dattri
from benchmarks.variants.naive import naive_loop
from benchmarks.variants.opacus import opacus
from benchmarks.variants.plain import plain, plain_chunked_loss
from benchmarks.variants.presence import presence
from benchmarks.variants.step import Step
from benchmarks.variants.vmap import vmap

VARIANTS: dict[str, Callable[[Setting], Step]] = {
    "plain": plain,
    "plain_compiled": partial(plain, compiled=True),
    "plain_chunked_loss": plain_chunked_loss,
    "one_pass_projected": partial(presence, estimator="projected"),
    "one_pass_without_kernels": partial(presence, estimator="projected", kernels=False),
    "one_pass_aligned": partial(presence, estimator="projected", alignment=True),
    "one_pass_exact": partial(presence, estimator="exact"),
    "two_pass_projected": partial(presence, estimator="projected", strategy="two_pass"),
    "loss_signal": partial(presence, signal="loss"),
    "two_pass_compiled": partial(presence, estimator="projected", strategy="two_pass", compiled=True),
    "loss_signal_compiled": partial(presence, signal="loss", compiled=True),
    "naive_loop": naive_loop,
    "vmap": vmap,
    "opacus": opacus,
    "dattri": dattri,
    "dattri_selection": partial(dattri, scores="selection"),
    "bergson": bergson,
    "bergson_unweighted": partial(bergson, weighs=False),
}
BASELINES = ("naive_loop", "vmap", "opacus")  # exact per-sample norms without PRESENCE
PEERS = {  # other projects, and the module of each, which may not be installed
    "dattri": "dattri_llm",
    "dattri_selection": "dattri_llm",
    "bergson": "bergson",
    "bergson_unweighted": "bergson",
}
WHOLE = (*BASELINES, *PEERS)  # they need whole parameters

__all__ = ["BASELINES", "PEERS", "VARIANTS", "WHOLE", "Step"]
