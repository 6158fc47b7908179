"""The settings of `python -m benchmarks.overhead matrix`: one model, and what is varied about it, one at a time.

A full product of precisions, lengths, vocabularies, stages and ranks would take a day; around one centre it takes half
an hour on two cores. The number of tokens per step is about the same in all settings of a matrix. The short ones leave
bf16 out where the processor does not compute in it: a step would take some fifty times as long.
"""

from dataclasses import replace
from importlib.util import find_spec

import torch

from benchmarks.setting import Setting
from benchmarks.variants import BASELINES, PEERS, VARIANTS, WHOLE
from presence_ds.trainer.building.device import hardware_has_bf16

OURS = [name for name in VARIANTS if name not in WHOLE]
OTHERS = ["plain", *BASELINES]  # in a run of their own: their long steps would leave few for the close comparisons
FEW = ["plain", "plain_chunked_loss", "one_pass_projected", "loss_signal"]
Plan = list[tuple[Setting, list[str], bool]]  # the last: whether memory is measured too


def cpu_matrix() -> Plan:
    """42 M parameters, for two cores.

    float32 steps are several times as long as bf16 ones, so it is bf16 that lengths, vocabularies and ranks are varied
    in. The other projects' ways are measured at one length: at T = 2048 vmap alone would hold 10 GiB.
    """
    full, half = Setting(steps=4, warmup=1), Setting(precision="bf16", steps=8, warmup=1)
    few = replace(half, steps=4)
    one_thread = replace(few, threads=1)
    return [
        (full, OURS, True),
        (half, OURS, True),
        (replace(half, keep_freed=True), FEW, False),
        (replace(full, steps=1), OTHERS, True),
        (replace(half, steps=3), OTHERS, True),
        (replace(few, sequence_length=128, batch_size=16), OURS, False),
        (replace(few, sequence_length=2048, batch_size=2), OURS, True),
        (replace(few, vocabulary=8192), FEW, False),
        (replace(few, vocabulary=65536), FEW, True),
        (one_thread, FEW, False),
        (replace(one_thread, ranks=2, stage=1), FEW, False),
        (replace(one_thread, ranks=2, stage=2), FEW, True),
        (replace(one_thread, ranks=2, stage=3), FEW, True),
    ]


def kept_plan() -> Plan:
    """42 M parameters, and 85 M of twice the width, with freed memory kept as a GPU keeps it."""
    narrow = Setting(keep_freed=True, steps=9)
    half = replace(narrow, precision="bf16", steps=15)
    last = half if hardware_has_bf16() else narrow
    return [
        (narrow, FEW, False),
        *([(half, FEW, False)] if hardware_has_bf16() else []),
        (replace(last, hidden_size=1024, layers=4, steps=9), FEW, False),
    ]


def gpu_setting() -> Setting:
    """370 M parameters at T = 2048 in bf16."""
    return Setting(
        hidden_size=1024,
        layers=24,
        vocabulary=32000,
        sequence_length=2048,
        batch_size=4,
        precision="bf16",
        steps=15,
        warmup=4,
    )


def gpu_matrix() -> Plan:
    """370 M parameters at T = 2048 in bf16, for one GPU; with more of them also over all, ZeRO 1 to 3."""
    centre = gpu_setting()
    count = torch.cuda.device_count()
    return [
        (centre, OURS, True),
        (replace(centre, steps=5), OTHERS, True),
        (replace(centre, precision="float32"), OURS, False),
        (replace(centre, sequence_length=128, batch_size=64), OURS, False),
        (replace(centre, sequence_length=512, batch_size=16), OURS, False),
        (replace(centre, vocabulary=8192), FEW, False),
        (replace(centre, vocabulary=65536), FEW, True),
        *((replace(centre, ranks=count, stage=stage), FEW, True) for stage in (1, 2, 3) if count > 1),
    ]


def peers_plan() -> Plan:
    """What else computes scores by sample, as far as it is installed, beside plain and `one_pass`."""
    ours = ["plain", "one_pass_projected", "one_pass_exact"]
    others = [*BASELINES, *(name for name, module in PEERS.items() if find_spec(module) is not None)]
    if torch.cuda.is_available():
        return [(replace(gpu_setting(), steps=8, warmup=2), [*ours, *others], True)]
    setting = Setting(keep_freed=True, steps=5, warmup=1)
    settings = [setting, replace(setting, precision="bf16")] if hardware_has_bf16() else [setting]
    return [(setting, [*ours, *others], True) for setting in settings]
