"""DeepSpeed settings: what DeepSpeed would refuse, ignore or read otherwise is one line before it is handed over."""

import json
from pathlib import Path
from typing import Any

import pytest

import presence_ds
from presence_ds.engine.settings import read_settings, try_settings
from presence_ds.errors import ConfigError
from tests.models import tiny_model

PRESENCE = {"weighting": {"kind": "clip"}}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"sparse_gradients": True}, "DeepSpeed refuses the settings: .*sparse_gradients"),
        ({"communication_data_type": "float32"}, "DeepSpeed refuses .*communication_data_type.*fp32.*Got: float32"),
        ({"amp": {"enabled": True}}, "DeepSpeed refuses the settings: .*bf16"),
        ({"elasticity": {"enabled": False}}, "DeepSpeed refuses the settings: .*lasti"),
        ({"fp16": {"enabled": False, "loss_scale": -1}}, "DeepSpeed refuses loss_scale: .*must be >= 0"),
        ({"zero_optimization": {"stage": 3, "stage3_max_live_params": 1}}, "DeepSpeed refuses stage3_max_live_params"),
        ({"gradient_clipping": "auto"}, 'gradient_clipping is "auto", which only the Hugging Face Trainer'),
        ({"bf16": {"enabled": "auto"}}, 'bf16.enabled is "auto", which only the Hugging Face Trainer'),
        ({"data_efficiency": {"enabled": True}}, "data_efficiency is enabled, which would have no effect"),
        (
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            "offload_param.device is cpu with stage 2, where it would have no effect: use stage 3",
        ),
        (
            {"zero_optimization": {"stage": 0, "offload_optimizer": {"device": "cpu"}}},
            "offload_optimizer.device is cpu with stage 0, where it would have no effect",
        ),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}},
            "offload_param.nvme_path is None: device nvme needs a folder",
        ),
        (
            {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme", "nvme_path": "/not/there"}}},
            "offload_optimizer.nvme_path is /not/there: device nvme needs a folder",
        ),
        ({"pipeline": {"stages": 2}}, "pipeline is enabled, which would have no effect"),
    ],
)
def test_what_deepspeed_refuses_or_ignores_is_one_line(section: dict[str, Any], message: str) -> None:
    settings = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": 1}} | section
    with pytest.raises(ConfigError, match=message) as raised:
        presence_ds.initialize(model=tiny_model("llama", tied=True), config=settings, presence=PRESENCE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"train_batch_size": 12, "gradient_accumulation_steps": 3},
        {"data_efficiency": {"enabled": False}},
        {"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto", "overlap_comm": True}},
        {"flops_profiler": {"enabled": True, "profile_step": 2}, "wall_clock_breakdown": True},
    ],
)
def test_what_works_is_left_as_it_is(section: dict[str, Any]) -> None:
    settings = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": 1}} | section
    before = json.dumps(settings)
    try_settings(settings)
    assert json.dumps(settings) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"zero_optimization": {"stage": 1}, "zero_optimization": {"stage": 3}}', '"zero_optimization" stands twice'),
        ('{"zero_optimization": {"stage": 1, "stage": 2}}', '"stage" stands twice'),
        ('{"zero_optimization": {"stage": 1},}', "it is not JSON"),
        ('{"zero_optimization": {"stage": 1} // comment\n}', "it is not JSON"),
        ("[1]", "it must hold a JSON object"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_says_two_things_or_nothing_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "ds.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as raised:
        read_settings(path, "config")
    assert str(path) in str(raised.value)
