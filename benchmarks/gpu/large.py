"""Part large: 1.3 B parameters with ZeRO-3, on the GPU and with the optimizer on the CPU."""

from dataclasses import replace

from benchmarks.gpu.overhead import TINY, report, steps
from benchmarks.gpu.run import Part, Run
from benchmarks.matrix import gpu_setting

ROWS = ["plain", "one_pass_projected"]
MOST_S = 120.0


def run(it: Run, part: str) -> None:
    """Offloaded, the optimizer is torch's: DeepSpeed's own on the CPU is compiled at first use."""
    large = replace(gpu_setting(), hidden_size=2048, layers=24, stage=3, steps=10, warmup=3)
    for offload in (True,) if it.tiny else (False, True):
        setting = replace(TINY, stage=3, offload=offload) if it.tiny else replace(large, offload=offload)
        if offload:
            setting = replace(setting, steps=3, warmup=1)
        steps(it, part, setting, ROWS, MOST_S)


PART = Part("1.3 B parameters", run, report)
