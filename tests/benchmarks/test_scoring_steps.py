"""The table of how well scores tell noise from text, from records that are made up."""

import pyarrow as pa

from benchmarks.scoring_steps import report


def test_each_row_has_its_steps() -> None:
    """In the first four the noise has the higher scores, then the lower; of the loss it is the other way round."""
    steps = [1, 4, 4, 5, 8, 8]
    high, low = [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]
    records = pa.table(
        {
            "step": steps,
            "source": ["prose", "code", "noise"] * 2,
            "self_influence": high + low,
            "vocabulary_influence": [0.5] * 6,
            "loss": low + high,
        }
    )
    assert report(records, "noise").splitlines()[2:] == [
        "| 1 to 4 | 1.00 | 0.50 | 1.00 | 0.00 |",
        "| 5 to 8 | 0.00 | 0.50 | 0.00 | 1.00 |",
    ]
