"""Steps that are worth a look."""

import duckdb
import numpy as np

from presence_ds.trainer.report.choosing import HIGH, SPIKES, SPREAD, choose


def chosen_of(losses: np.ndarray) -> dict[str, list[int]]:
    """Steps, counted from 1, by why."""
    with duckdb.connect() as connection:
        connection.execute("create table lines (step bigint, loss double)")
        connection.executemany("insert into lines values (?, ?)", list(enumerate(losses.tolist(), 1)))
        found: dict[str, list[int]] = {}
        for one in choose(connection, "select step, loss from lines"):
            found.setdefault(one.why, []).append(one.step)
        return found


def test_spikes_of_a_falling_loss() -> None:
    draw = np.random.default_rng(0)
    losses = 2 + 6 / (1 + np.arange(500) / 20) + 0.02 * draw.standard_normal(500)
    losses[[30, 250, 499]] += 1.0
    found = chosen_of(losses)
    assert found["spike"] == [31, 251, 500]
    assert len(found["spread"]) in range(SPREAD - 3, SPREAD + 1)
    assert len(found.get("high loss", [])) <= HIGH
    assert 1 not in found.get("high loss", [])  # which is only where the loss begins


def test_no_more_than_can_be_shown() -> None:
    losses = np.random.default_rng(0).standard_cauchy(2000)
    found = chosen_of(losses)
    assert len(found["spike"]) == SPIKES
    assert len(found["high loss"]) <= HIGH
    assert len(found["spread"]) <= SPREAD


def test_a_spike_is_never_called_less() -> None:
    """Of more spikes than are shown, the rest take no place of high losses, and are none."""
    losses = 2 + 0.02 * np.random.default_rng(0).standard_normal(2000)
    spikes = list(range(30, 1900, 40))
    losses[spikes] += 4.0
    found = chosen_of(losses)
    assert len(found["spike"]) == SPIKES < len(spikes)
    assert not {step - 1 for step in found["high loss"]} & set(spikes)
    assert len(found["high loss"]) == HIGH


def test_short_and_flat() -> None:
    assert chosen_of(np.array([1.0])) == {"spread": [1]}
    assert chosen_of(np.ones(40)).keys() == {"spread"}
