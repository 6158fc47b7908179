"""PRESENCE in the Hugging Face Trainer: a tiny Llama learns to count.

    deepspeed examples/hf_trainer.py

On two CPU ranks: DS_ACCELERATOR=cpu deepspeed --num_accelerators 2 examples/hf_trainer.py
"""

import argparse

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from presence_ds.hf import PresenceTrainer as Trainer  # in the place of: from transformers import Trainer

DEEPSPEED = {
    "zero_optimization": {"stage": 2},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "presence": {"preset": "paper", "schedule": {"switch_fraction": 0.25}},  # optional; every field has a default
}


class Counting(Dataset[dict[str, torch.Tensor]]):
    """Sequences of 32 numbers that go up by a step of their own; every fifth is noise."""

    def __len__(self) -> int:
        return 500

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        start, step = torch.randint(1, 64, (2,), generator=generator)
        ids = (start + step * torch.arange(32)) % 64
        if index % 5 == 0:
            ids = torch.randint(64, (32,), generator=generator)
        return {"input_ids": ids, "labels": ids}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--local_rank", type=int, help="given by the launcher")
    parser.add_argument("--output", default="hf_trainer_output")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    trainer = Trainer(
        model=LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=32, **sizes)),
        args=TrainingArguments(
            options.output,
            deepspeed=DEEPSPEED,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            max_steps=options.steps,
            learning_rate=3e-3,
            logging_steps=10,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
        ),
        train_dataset=Counting(),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
