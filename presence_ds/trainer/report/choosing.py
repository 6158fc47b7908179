"""Steps that are worth a look: spikes of the loss, high losses, and some that are evenly spaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import duckdb

LEAST = 1e-6  # deviation, by the loss
SPIKES, HIGH, SPREAD = 20, 15, 25  # at most of each
SPIKE_DEVIATIONS, HIGH_DEVIATIONS = 6.0, 2.0  # robust ones, at least
NEAR, AROUND = 8, 25  # steps before, and after: that a loss is compared with, and that tell what is usual


class Chosen(NamedTuple):
    """A step to look at: as of `MovedStep`."""

    step: int
    why: str
    words: str


def choose(connection: duckdb.DuckDBPyConnection, losses: str) -> list[Chosen]:
    """By step, at most 60 of those that the query ``losses`` (step, loss) has.

    A loss is compared with the median of those before it, or of those after it if that is higher, so that one that
    falls quickly is not high everywhere. What is usual is the median change from one step to the next.
    """
    rows = connection.execute(
        f"""
        with losses as ({losses}),
        medians as (
            select step, loss, row_number() over (order by step) as place, count(*) over () as number,
                median(loss) over (order by step rows between {NEAR} preceding and 1 preceding) as before,
                median(loss) over (order by step rows between 1 following and {NEAR} following) as after,
                abs(loss - lag(loss) over (order by step)) as change
            from losses
        ),
        compared as (
            select step, loss, place, number, if(before is null, NULL, greatest(before, after)) as usual,
                1.4826 / sqrt(2)
                    * median(change) over (order by step rows between {AROUND} preceding and {AROUND} following)
                    as deviation
            from medians
        ),
        ranked as (
            select *, (loss - usual) / greatest(deviation, {LEAST} * abs(usual)) as z,
                place * {SPREAD} // number <> (place - 1) * {SPREAD} // number as is_spread
            from compared
        )
        (select step, 'spike', loss, usual, z from ranked where z > {SPIKE_DEVIATIONS} order by z desc limit {SPIKES})
        union all (
            select step, 'high loss', loss, usual, z from ranked where z > {HIGH_DEVIATIONS} and z <= {SPIKE_DEVIATIONS}
            order by z desc limit {HIGH}
        )
        union all (select step, 'spread', loss, usual, z from ranked where is_spread)
        """
    ).fetchall()
    found: dict[int, Chosen] = {}
    for step, why, loss, usual, z in rows:
        if why == "spread":
            found.setdefault(step, Chosen(step, why, "one of several evenly spaced steps"))
        else:
            words = f"its loss {loss:.4f} is {z:.1f} deviations above {usual:.4f}, the median of the steps around it"
            found[step] = Chosen(step, why, words)
    return [found[step] for step in sorted(found)]
