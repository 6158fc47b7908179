"""Streamed samples: one order on any ranks and workers, that goes on from any batch."""

import json
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from presence_ds.data import DataConfig, ObjectiveConfig, SourceConfig, StreamingConfig
from presence_ds.data.streaming.lane import TOKENIZED_DOCUMENTS
from tests.data.conftest import make_text
from tests.data.streaming.streams import LENGTH, PACKINGS, MakeConfig, group_of, take, the_state


@pytest.mark.parametrize("packing", PACKINGS)
def test_one_order_over_changes_of_ranks_and_micro_batches(
    packing: str, make: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Also on numbers of ranks that do not divide the lanes, where lanes are shared."""
    config = make(packing=packing)
    expected = take(group_of(config, tokenizer), 200)
    taken, state = [], None
    for ranks, micro_batch_size, micro_steps in ((2, 3, 5), (4, 1, 11), (1, 7, 9), (3, 2, 10), (4, 5, 4), (2, 4, 30)):
        group = group_of(config, tokenizer, ranks, micro_batch_size, state)
        taken += take(group, micro_steps)
        state = the_state(group)
        assert state[0]["position"] == len(taken)
    assert taken == expected[: len(taken)]
    assert len(set(taken)) > 100


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_one_order_while_workers_read_ahead(
    num_workers: int, make: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    expected = take(group_of(make(), tokenizer), 40)
    config = make(num_workers=num_workers)
    first = group_of(config, tokenizer, 2, 3)
    taken = take(first, 7)
    second = group_of(config, tokenizer, 1, 4, the_state(first))
    assert taken + take(second, 20) == expected[: 42 + 80]


@pytest.mark.parametrize("packing", PACKINGS)
def test_resuming_at_any_batch_gives_the_same_rest(
    packing: str, make: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = make(packing=packing)
    expected = take(group_of(config, tokenizer, 1, 1), 130)
    (batches,) = group_of(config, tokenizer, 1, 1)
    for taken in range(100):
        if taken % 7 == 0:
            assert take(group_of(config, tokenizer, 1, 1, the_state([batches])), 20) == expected[taken : taken + 20]
        next(batches)


def test_a_resume_reads_what_is_held_and_no_more(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Late in a file of 5,000 rows it reads the rows of one buffer for each lane, and those tokenized with them."""
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        for number in range(5_000):
            file.write(json.dumps({"text": f"{make_text(number % 50)} {number}"}) + "\n")
    config = DataConfig(
        sources=[SourceConfig("long", str(path))],
        streaming=StreamingConfig(lanes=2, buffer_samples=20),
        validation_fraction=0.0,
        sequence_length=LENGTH,
    )
    config.validate()
    (batches,) = group_of(config, tokenizer, micro_batch_size=100)
    rows = batches._samples.stream.tallies[0]
    while rows.rows < 4_000:
        next(batches)
    (resumed,) = group_of(config, tokenizer, micro_batch_size=100)
    state = batches.state_dict()
    resumed.load_state_dict(state)
    assert torch.equal(next(resumed)["input_ids"], next(batches)["input_ids"])
    assert resumed._samples.stream.tallies[0].rows <= 2 * (20 + TOKENIZED_DOCUMENTS)
    assert len(json.dumps(state)) < 1000


def test_spans_differ_in_every_epoch_and_not_between_ranks(
    make: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = make(objective=ObjectiveConfig("span_corruption"))
    one, two = group_of(config, tokenizer, 1, 6), group_of(config, tokenizer, 2, 3)
    inputs = defaultdict(set)
    for _ in range(150):
        (whole,), halves = [next(batches) for batches in one], [next(batches) for batches in two]
        for name in ("input_ids", "labels"):
            assert torch.equal(torch.stack([half[name] for half in halves], 1).flatten(0, 1), whole[name])
        samples = zip(whole["document_ids"], whole["offsets"].tolist(), whole["input_ids"].tolist(), strict=True)
        for document, offset, ids in samples:
            inputs[document, offset].add(tuple(ids))
    assert max(len(found) for found in inputs.values()) > 1
