"""python -m study run PLAN WORK TEXTS [--results FOLDER] [--shard 1/4] [--workers 2] [--contrast NAME]

runs what is missing of a plan; `python -m study collect WORK FOLDER` keeps what has ended as two small tables, and
`python -m study tables FOLDER --document PAGE.md` puts what they say into a page.
"""

import re
import sys
from pathlib import Path

from jsonargparse import auto_cli

from benchmarks.document import write_section
from presence_ds.errors import ConfigError, PresenceError
from study.committed import runs_of
from study.figures import predictions_figure
from study.plan import read_plan
from study.ranks import at_a_time
from study.results import read_rows, read_tables, write_tables
from study.runs import Runs
from study.tables import TABLES


def run(
    plan: str,
    work: Path,
    texts: Path,
    results: Path | None = None,
    shard: str = "1/1",
    workers: int | None = None,
    contrast: str | None = None,
) -> None:
    """Run the cells of a plan that have no row yet.

    Args:
        plan: Name of a file in study/plans, or a file.
        work: Folder for corpora, runs and rows; machines that share it share the work by --shard.
        texts: Folder with the texts of study/texts.py.
        results: Folder of rows.csv, whose cells have been run already. null: only what is in WORK has been.
        shard: Which part of the cells, 1/4 to 4/4.
        workers: Runs at a time, each on one core. null: as many as there are cores; with an accelerator one.
        contrast: One contrast of the plan alone. null: all of them.
    """
    found = read_plan(plan)
    if contrast is not None and contrast not in found.contrasts:
        raise ConfigError(f"contrast is {contrast}: plan {plan} has {', '.join(found.contrasts)}")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}: it must be at least 1, or null")
    number, count = read_shard(shard)
    cells = found.cells(contrast)[number - 1 :: count]
    known = set() if results is None else {line["key"] for line in read_tables(results)[0]}
    runs = Runs(found, work, texts, known)
    print(f"{len(runs.missing(cells))} of {len(cells)} cells are to run", flush=True)
    runs.run(cells, workers or at_a_time(), lambda line: print(line, flush=True))


def collect(work: Path, results: Path) -> None:
    """Keep all rows that there are as two small tables.

    Args:
        work: Folder of a study's runs.
        results: Folder for rows.csv and curves.csv.
    """
    rows = read_rows(work / "rows")
    if not rows:
        raise ConfigError(f"{work} has no rows: give the folder that `python -m study run` wrote to, once a run ended")
    write_tables(rows, results)


def tables(results: Path, document: Path | None = None, picture: Path | None = None) -> None:
    """Make the document's tables and its picture of the committed rows.

    Args:
        results: Folder of rows.csv and curves.csv.
        document: Markdown file with the places for them. null: print them.
        picture: SVG file to make of what was foretold and seen. null: none.
    """
    runs = runs_of(results)
    for name, make in TABLES.items():
        write_section(document, name, make(runs))
    if picture is not None:
        picture.write_text(predictions_figure(runs), encoding="utf-8")


def read_shard(shard: str) -> tuple[int, int]:
    """Number, from 1, and count of "i/n".

    Raises:
        ConfigError: it is nothing of the kind.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"shard is {shard}: it must be i/n with i from 1 to n, such as 1/4")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    try:
        auto_cli([run, collect, tables])
    except PresenceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
