"""Conditions in SQL: what they choose, and that they reach nothing but the scores."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from presence_ds.errors import ConfigError
from presence_ds.trainer.scores.layout import Scores, open_scores
from presence_ds.trainer.scores.where import rows_where
from tests.trainer.scores.folders import random_scores, write_scores


@pytest.fixture(scope="module")
def scores(corpora: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Scores:
    """Losses count up by hundredths; the last self-influence is not a number."""
    corpus = corpora["best_fit"]
    values = random_scores(corpus)
    values[-1] = np.nan
    losses = np.arange(len(values), dtype=np.float32) / 100
    return open_scores(write_scores(tmp_path_factory.mktemp("where") / "scores", corpus, values, loss=losses))


def test_what_is_true_is_chosen(scores: Scores, corpora: dict[str, Path]) -> None:
    loss, influence = np.arange(scores.rows, dtype=np.float32) / 100, random_scores(corpora["best_fit"])
    influence[-1] = np.nan
    chosen = rows_where(scores, "loss < 2 and self_influence < 1")
    assert 0 < chosen.sum() < scores.rows
    assert chosen.tolist() == ((loss < 2) & (influence < 1)).tolist()
    assert rows_where(scores, '"row" = 7 or loss is null').nonzero()[0].tolist() == [7]
    assert rows_where(scores, "year(timestamp '2020-01-01' + interval 1 day) = 2020").all()
    above = rows_where(scores, "loss > (select avg(loss) from scores)")
    assert above.tolist() == (loss > loss.mean(dtype=np.float64)).tolist()
    by_source = rows_where(scores, "source = 'a' and document_id like 'a1%'")
    table = next(scores.parts(["source", "document_id"]))[1].to_pylist()
    for row, one in enumerate(table):
        assert by_source[row] == (one["source"] == "a" and one["document_id"].startswith("a1"))
    assert not rows_where(scores, "reference_alignment > 0").any()  # null of every sample


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("lss < 3", "lss"),
        ("loss <", "where is 'loss <'"),
        ("", "where is ''"),
        ("loss", "it must be true or false"),
        ("loss < 3, loss < 2", "where"),
        ("loss < 3); drop table scores; --", "syntax error"),
        ("sum(loss) > 3", "ggregates"),  # the first letter depends on the version
        ("\"row\" in (select 1 from read_csv('FILE'))", "disabled"),
        ("\"row\" in (select 1 from read_parquet('FILE'))", "disabled"),
        ("length((select content from read_text('FILE'))) > 0", "disabled"),
        ("\"row\" in (select 1 from 'FILE')", "where"),
        ('"row" in (select x from condition_table)', "condition_table"),
        ("random() < 0.5", "random() is another each time"),
        ("loss < (select max(loss) * RANDOM() from scores where source <> 'it''s')", "random() is another each time"),
        ("loss < epoch(now())", "now() is another each time"),
        ("extract(day from Current_Date) < 99", "Current_Date is another each time"),
        ('"row" in (select "row" from scores using sample 50%)', "a sample is another each time"),
        ('"row" in (select "row" from scores tablesample 50%)', "a sample is another each time"),
    ],
)
def test_what_is_no_condition(condition: str, words: str, scores: Scores) -> None:
    file, condition_table = scores.files[0][1], pa.table({"x": [1]})
    with pytest.raises(ConfigError) as caught:
        rows_where(scores, condition.replace("FILE", str(file)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(condition_table) == 1


ENDLESS = "exists(with recursive t(i) as (select 1 union all select i + 1 from t) select 1 from t where i < 0)"


def test_a_condition_without_an_end_is_interrupted(scores: Scores) -> None:
    program = f"""
import signal
from pathlib import Path
from presence_ds.trainer.scores.layout import open_scores
from presence_ds.trainer.scores.where import rows_where
scores = open_scores(Path({str(scores.folder)!r}))
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where a shell runs tests in the background
print("asked", flush=True)
rows_where(scores, {ENDLESS!r})
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asked\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        try:
            _, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert b"KeyboardInterrupt" in error
