"""What a changed recipe does to a run that goes on from a checkpoint: the rule of every field.

docs/checkpoints.md prints the table. A field that is added to the recipe needs a rule here.
"""

from presence_ds.engine.resume_rules import PRESENCE, Rule, Table

APPLIED = Rule("applied")
SAME_SAMPLES = Rule("applied", "the samples have to be the same, which their digest tells")
SAME_TOKENS_PER_STEP = Rule("applied", "together they have to make the same tokens per step, which is checked")
ORDER = Rule("refused", "the samples or their order depend on it")


def of(section: str, *rows: tuple[str, Rule]) -> Table:
    """Rows of a section, whose name comes before each field's."""
    return [(" ".join(f"{section}.{name}" for name in names.split()), rule) for names, rule in rows]


SOURCE = (
    ("path format", SAME_SAMPLES),
    ("name subset split revision documents text_field id_field content max_megabytes weight", ORDER),
    ("min_megabytes", Rule("applied", "it is only checked")),
    ("language", Rule("applied", "it is only noted")),
)

RECIPE: Table = [
    ("run_dir", Rule("applied", "a checkpoint of another run_dir is named by checkpoint.resume")),
    ("deepspeed", Rule("applied", "another ZeRO stage is refused")),
    *of(
        "data",
        ("prepared tokenizer.path", SAME_SAMPLES),
        (
            "validation_fraction objective.kind objective.noise_density objective.mean_span_length sequence_length "
            "packing tokenizer.vocab_size tokenizer.eos_token tokenizer.add_bos streaming.lanes "
            "streaming.buffer_samples streaming.tokenizer_megabytes noise[].kind noise[].share noise[].name "
            "max_document_megabytes seed",
            ORDER,
        ),
        ("max_bad_share on_bad_file", Rule("applied", "to what is read from now on")),
        ("document_mask tokenizer.trust_remote_code num_workers", APPLIED),
    ),
    *of("data.sources[]", *SOURCE),
    *of("data.validation_sources[]", *SOURCE),
    *of(
        "model",
        ("config", Rule("refused", "the model is the checkpoint's")),
        ("path from_scratch differing_weights", Rule("none", "the weights are the checkpoint's")),
        ("trust_remote_code attention activation_checkpointing compile", APPLIED),
    ),
    *of("presence", *PRESENCE),
    *of(
        "reference",
        ("sources", Rule("refused", "the position in the reference stream depends on it", ("a reference",))),
        ("every_steps", APPLIED),
    ),
    *of(
        "optimizer",
        ("kind", Rule("refused", "the optimizer's state is of that kind")),
        ("no_decay", Rule("refused", "the optimizer's state is laid out by it")),
        ("lr betas eps momentum weight_decay implementation", APPLIED),
    ),
    *of(
        "lr_schedule",
        ("kind warmup_steps min_ratio decay_steps decay_shape", Rule("applied", "as if the run had begun with it")),
    ),
    *of(
        "training",
        ("steps gradient_clipping", APPLIED),
        ("micro_batch_size gradient_accumulation_steps global_batch_size", SAME_TOKENS_PER_STEP),
        ("precision", Rule("refused", "weights and optimizer state are in it")),
        ("seed", Rule("none", "weights and random states are the checkpoint's")),
    ),
    *of("evaluation", ("every_steps max_batches by_frequency", APPLIED)),
    *of("checkpoint", ("every_steps at_end asynchronous keep keep_every resume", APPLIED)),
    *of("health", ("enabled seconds slow_factor on_slow", APPLIED)),
    *of("stop", ("signals stop_file wall_clock hang_seconds", APPLIED)),
    *of(
        "anomalies",
        (
            "window_steps spike_deviations averaging_steps warmup_steps "
            "nonfinite_steps.consecutive nonfinite_steps.in_window skipped_steps.consecutive skipped_steps.in_window "
            "loss_spikes.consecutive loss_spikes.in_window gradient_spikes.consecutive gradient_spikes.in_window",
            Rule("applied", "what was counted before stays"),
        ),
    ),
    *of("logging", ("every_steps score_records peak_tflops", APPLIED)),
    *of("profiler", ("enabled ranks first_step steps memory", APPLIED)),
    *of(
        "wandb",
        ("enabled project entity group name mode table_every sample_text alerts stall_minutes", APPLIED),
    ),
    *of("tensorboard", ("enabled table_every sample_text", APPLIED)),
    *of("trackio", ("enabled project name table_every sample_text", APPLIED)),
]
