"""One rank that trains a few steps and counts the collectives of the last. Started by `benchmarks.scale`."""

import json
import logging
import warnings
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from jsonargparse import auto_cli

from benchmarks.communication.counting import CountCollectives
from benchmarks.setting import Setting
from benchmarks.variants import VARIANTS

WARMUP = 3  # ZeRO-3 learns the order of the modules meanwhile


def work(setting: Setting, variants: list[str], result: Path) -> None:
    """Count, and have rank 0 write a JSON object to ``result``: ``parameters``, and ``traffic`` by variant and kind.

    Args:
        setting: What to train.
        variants: Which of `benchmarks.variants.VARIANTS`.
        result: A file that does not exist.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    deepspeed.init_distributed()
    ids = torch.randint(setting.vocabulary, (setting.batch_size, setting.sequence_length))
    traffic = {}
    for name in variants:
        step = VARIANTS[name](setting)
        for _ in range(WARMUP):
            step(ids)
        with CountCollectives() as counter:
            step(ids)
        traffic[name] = {kind: (found.calls, found.payload) for kind, found in counter.traffic.items()}
    if dist.get_rank() == 0:
        parameters = sum(parameter.numel() for parameter in setting.model().parameters())
        result.write_text(json.dumps({"parameters": parameters, "traffic": traffic}), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    auto_cli(work, as_positional=False)
