"""What ranks tell each other along with the scores of a step is known after its last forward, whatever the step is."""

from typing import Any

import pytest
import torch
import torch.distributed as dist

from benchmarks.communication import CountCollectives
from presence_ds.errors import NonFiniteError
from presence_ds.reweighting import Messages
from tests.combinations.covering import covered, named
from tests.engine.behaviour import start
from tests.engine.precision import fp16_on_any_processor
from tests.engine.training import data
from tests.ranks import Ranks

SETTINGS = {
    "presence": [
        {},
        {"signal": "loss"},
        {"signal": "uniform"},
        {"alignment": True},
        {"strategy": "two_pass"},
        {"strategy": "two_pass", "signal": "loss"},
    ],
    "accumulation": [1, 2],
    "stage": [1, 2, 3],
    "what": ["ordinary", "without targets", "not finite", "overflow"],
}
NUMBERS = 7  # of which rows of three or four columns need several
OF_RANK_1 = 2**24 - 1, 5  # in the first step and the second
OVERFLOWING = {"fp16": {"enabled": True, "initial_scale_power": 60}}


def named_case(case: dict[str, Any]) -> str:
    return named(case | {"presence": "-".join(map(str, case["presence"].values())) or "default"})


@pytest.mark.parametrize("case", covered(SETTINGS), ids=named_case)
def test_every_rank_knows_what_all_have_told(two_ranks: Ranks, case: dict[str, Any]) -> None:
    of_both = {f"number {index}": (10 + index, 11 + 2 * index) for index in range(NUMBERS)}
    for heard, counts in two_ranks.run(tell, **case):
        assert heard == [of_both | {"of rank 1": (number, number)} for number in OF_RANK_1[: len(heard)]]
        assert len(heard) == (1 if case["what"] == "not finite" else 2)  # which ends it
        if case["what"] == "ordinary":
            assert counts[3] == counts[4]  # collectives of a step in which something is told, and nothing


def tell(presence: dict[str, Any], accumulation: int, stage: int, what: str) -> Any:
    """What is heard after the last forwards of two steps, of all names so far, and the collectives of five steps."""
    with fp16_on_any_processor():
        settings = OVERFLOWING if what == "overflow" else {}
        presence = {"projection_dim": 4} | presence
        engine = start(presence=presence, accumulation_steps=accumulation, stage=stage, **settings)
        if what == "not finite":
            engine.module.get_input_embeddings().register_forward_hook(lambda module, args, found: found * torch.nan)
        heard: list[dict[str, Any]] = []
        counts = []
        for step, batches in enumerate(data(5, accumulation)[:, :, dist.get_rank()]):
            with CountCollectives() as counter:
                try:
                    for number, ids in enumerate(batches):
                        if number == accumulation - 1:
                            say(engine.presence.messages, step)
                        labels = torch.full_like(ids, -100) if what == "without targets" else ids
                        loss = engine(input_ids=ids, labels=labels)
                        if number == accumulation - 1 and step < 2:
                            heard.append(hear(engine.presence.messages))
                        engine.backward(loss)
                        engine.step()
                except NonFiniteError:
                    heard.append(hear(engine.presence.messages))
                    break
            counts.append({kind: traffic.calls for kind, traffic in counter.traffic.items()})
        engine.destroy()
        return heard, counts


def say(messages: Messages, step: int) -> None:
    rank = dist.get_rank()
    if step == 0:
        for index in range(NUMBERS):
            messages.tell(f"number {index}", 1 + index if rank == 0 else 10 + index)
    if step < 4:  # ZeRO-3 learns the order of the modules in the first ones
        messages.tell("of rank 1", rank * OF_RANK_1[step % 2])


def hear(messages: Messages) -> dict[str, Any]:
    names = [f"number {index}" for index in range(NUMBERS)] + ["of rank 1"]
    return {name: (messages.largest(name), messages.total(name)) for name in names}


@pytest.mark.parametrize("number", [-1, 2**24])
def test_a_number_that_a_row_does_not_hold_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"stop is {number}: it must be at least 0 and below 16777216"):
        Messages().tell("stop", number)
