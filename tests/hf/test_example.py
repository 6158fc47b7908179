"""examples/hf_trainer.py, started as it says, on two ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.ranks import free_port

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_example_trains_and_leaves_a_model(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "deepspeed.launcher.runner",
        "--num_accelerators=2",
        f"--master_port={free_port()}",
    ]
    command += [str(ROOT / "examples" / "hf_trainer.py"), "--output", str(tmp_path), "--steps", "20"]
    environment = os.environ | {
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    state = json.loads((tmp_path / "checkpoint-20" / "trainer_state.json").read_text())
    logs = [entry for entry in state["log_history"] if "loss" in entry]
    assert [entry["presence/tau"] for entry in logs] == [-1.0, -1.0]
    assert all(entry["presence/samples"] == 32 and entry["presence/si_mean"] > 0 for entry in logs)
    assert logs[-1]["loss"] < logs[0]["loss"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.vocab_size == 64
