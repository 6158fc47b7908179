"""Conditions on scores, in the SQL of DuckDB."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import dataset

from presence_ds.errors import ConfigError
from presence_ds.trainer.scores.layout import Scores

CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,  # files, the network, extensions
    "python_enable_replacements": False,  # variables of Python
}
# Written as a column is, without parentheses.
CLOCKS = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}


def rows_where(scores: Scores, condition: str) -> NDArray[np.bool_]:
    """Of which rows ``condition`` is true, bool [rows]; of the others it is false or null.

    It is one expression over the columns, which may look at the table ``scores`` as a whole, and at nothing else: no
    file and no network. An interrupt ends it.

    Raises:
        ConfigError: it is no such expression, or another one each time, such as ``random() < 0.5``.
    """
    found = np.zeros(scores.rows, np.bool_)
    with duckdb.connect(config=CLOSED) as connection:
        connection.execute("SET lock_configuration = true")
        connection.register("scores", dataset.dataset([str(path) for _, path in scores.files]))
        try:
            table = connection.table("scores")
            kind = table.project(condition).types
            if len(kind) != 1 or str(kind[0]) != "BOOLEAN":
                raise ConfigError(f"where is {condition!r}: it must be true or false, not {', '.join(map(str, kind))}")
            _check_repeatable(connection, condition)
            found[_fetch(connection, table.filter(condition).project('"row"'))["row"]] = True
        except duckdb.Error as error:
            raise ConfigError(f"where is {condition!r}: {' '.join(str(error).split())}") from None
        except pa.ArrowException as error:
            raise ConfigError(f"where is {condition!r}, and {scores.folder} cannot be read ({error})") from None
    return found


def _check_repeatable(connection: duckdb.DuckDBPyConnection, condition: str) -> None:
    statement = f"select {condition} from scores".replace("'", "''")
    parsed = connection.execute(f"select json_serialize_sql('{statement}')").fetchall()[0][0]
    unstable = connection.execute(
        "select function_name from duckdb_functions() group by function_name having bool_and(stability <> 'CONSISTENT')"
    )
    names = {name for (name,) in unstable.fetchall()}
    for node in _nodes(json.loads(parsed)["statements"]):
        if node.get("function_name") in names:
            found = f"{node['function_name']}()"
        elif node.get("column_names", [""])[-1].lower() in CLOCKS:
            found = node["column_names"][-1]
        elif node.get("sample") is not None:
            found = "a sample"
        else:
            continue
        raise ConfigError(
            f"where is {condition!r}: {found} is another each time, and the same rule has to keep the same"
        )


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """All parts of a statement that DuckDB has parsed."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _nodes(child)


def _fetch(connection: duckdb.DuckDBPyConnection, relation: duckdb.DuckDBPyRelation) -> dict[str, Any]:
    """Its columns. DuckDB does not look for an interrupt on the way, so that this thread waits for it."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(relation.fetchnumpy)
        try:
            return asked.result()
        except KeyboardInterrupt:
            while not wait([asked], timeout=0.1).done:  # one that has yet to begin forgets that it was interrupted
                connection.interrupt()
            raise
