"""Score records, read a stretch of steps at a time.

Files hold the steps of a group of ranks between two checkpoints, their row groups some of those steps, rank after rank.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from presence_ds.errors import ConfigError
from presence_ds.reweighting.config import Feature
from presence_ds.reweighting.samples import Samples
from presence_ds.trainer.run_directory.layout import RunDirectory

ROWS = 1 << 20  # that are read at once, as far as row groups allow
MOST_ROWS = 1 << 24  # beyond which they are read several times: 60 bytes each in memory
COLUMNS = ("step", "source", "loss", "self_influence", "alignment", "weight", "has_targets")
REFERENCE = "reference_alignment"  # which is read where it is asked for
FEATURES: dict[Feature, str] = {"vocabulary": "vocabulary_influence", "momentum": "momentum_alignment"}
REMEDIES = {
    "self_influence": "train with presence.alignment true, which takes it, or begin with a later --first_step",
    "alignment": "train with presence.alignment true, or begin with a later --first_step",
    REFERENCE: "train with reference.sources and what uses them, or use alignment_with step and other signals",
}


class RowGroup(NamedTuple):
    """A part of a file, and the steps it has records of."""

    file: Path
    metadata: Any  # of the file
    place: int
    first: int
    last: int
    rows: int


class Stretch(NamedTuple):
    """All records of these steps are in these row groups."""

    first: int
    last: int
    groups: list[RowGroup]

    @property
    def rows(self) -> int:
        """Of the row groups."""
        return sum(group.rows for group in self.groups)


@dataclass(frozen=True)
class Records:
    """Those of samples that count: by step, then as read.

    Attributes:
        steps: [n] int64, ascending.
        samples: [n]; their number of targets is not known, and 1.
        weights: [n] float32.
    """

    steps: Tensor
    samples: Samples
    weights: Tensor


def find_row_groups(directory: RunDirectory) -> list[RowGroup]:
    """Every row group of a run's finished files.

    Raises:
        ConfigError: there is none; or a file is none of score records, or cannot be read.
    """
    found = [group for file in sorted(directory.scores.glob("*.parquet")) for group in row_groups(file)]
    if not found:
        raise ConfigError(
            f"run_dir is {directory.path}: it has no score records; they come with a checkpoint, where "
            f"logging.score_records is true"
        )
    return found


def row_groups(file: Path) -> list[RowGroup]:
    found = []
    try:
        metadata = pq.read_metadata(file)
        column = metadata.schema.names.index("step")
        for place in range(metadata.num_row_groups):
            group = metadata.row_group(place)
            steps = group.column(column).statistics
            if group.num_rows:
                found.append(RowGroup(file, metadata, place, int(steps.min), int(steps.max), group.num_rows))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror or error})") from None
    except (pa.ArrowException, ValueError, TypeError, AttributeError):
        raise ConfigError(f"{file} holds no score records: take it out of the folder") from None
    return found


def columns_of(groups: Iterable[RowGroup], features: Collection[Feature], *, with_reference: bool) -> list[str]:
    """Names of the columns that are read: those of ``features`` where every row group has them, of all samples."""
    wanted = [name for feature, name in FEATURES.items() if feature in features]
    found = [name for name in wanted if all(_has(group, name) for group in groups)]
    return [*COLUMNS, *([REFERENCE] if with_reference else []), *found]


def _has(group: RowGroup, name: str) -> bool:
    names = group.metadata.schema.names
    if name not in names:
        return False
    statistics = group.metadata.row_group(group.place).column(names.index(name)).statistics
    return statistics is not None and statistics.null_count == 0


def check_columns(groups: Iterable[RowGroup], columns: Sequence[str]) -> None:
    """Raise `ConfigError` where a row group lacks a column, or a value of one."""
    for group in groups:
        names = group.metadata.schema.names
        where = f"{group.file} (steps {group.first} to {group.last})"
        for name in columns:
            if name not in names and name in REMEDIES:
                raise ConfigError(f"{where} has no column {name}, as an older version wrote it: {REMEDIES[name]}")
            if name not in names:
                raise ConfigError(f"{where} holds no score records, without a column {name}")
            kind = group.metadata.schema.to_arrow_schema().field(name).type
            if name != "source" and not (pa.types.is_primitive(kind) or pa.types.is_boolean(kind)):
                raise ConfigError(f"{where} holds no score records: its column {name} is of type {kind}")
            statistics = group.metadata.row_group(group.place).column(names.index(name)).statistics
            if statistics is not None and statistics.null_count and name in REMEDIES:
                raise ConfigError(f"{where} has no {name} of {statistics.null_count:,} samples: {REMEDIES[name]}")


def cut(groups: Sequence[RowGroup], rows: int = ROWS, most: int = MOST_ROWS) -> list[Stretch]:
    """The steps of ``groups`` in stretches of about ``rows`` records, one after the other.

    No row group is in two of them unless steps that share row groups have more than ``most`` together.
    """
    joined: list[Stretch] = []
    for group in sorted(groups, key=lambda group: group.first):
        if joined and group.first <= joined[-1].last:
            before = joined[-1]
            joined[-1] = Stretch(before.first, max(before.last, group.last), before.groups)
            before.groups.append(group)
        else:
            joined.append(Stretch(group.first, group.last, [group]))
    stretches: list[Stretch] = []
    size = 0  # of the last
    for one in joined:
        if stretches and size + one.rows <= rows:
            before = stretches[-1]
            stretches[-1] = Stretch(before.first, one.last, before.groups + one.groups)
            size += one.rows
        else:
            stretches += _pieces(one, most)
            size = one.rows
    return stretches


def _pieces(stretch: Stretch, rows: int) -> list[Stretch]:
    """``stretch``, or its steps in as many pieces as its rows ask for; their row groups are read again and again."""
    steps = stretch.last + 1 - stretch.first
    number = min(-(-stretch.rows // rows), steps)
    if number == 1:
        return [stretch]
    bounds = [stretch.first + piece * steps // number for piece in range(number + 1)]
    pieces = []
    for first, last in zip(bounds, (bound - 1 for bound in bounds[1:]), strict=False):
        inside = [group for group in stretch.groups if group.first <= last and group.last >= first]
        if inside:
            pieces.append(Stretch(first, last, inside))
    return pieces


class Reader:
    """Reads records, and numbers their sources in the order they come.

    Attributes:
        sources: names by id.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        """``columns`` as of `columns_of`."""
        self._names = list(columns)
        self._ids: dict[str, int] = {}

    @property
    def sources(self) -> list[str]:
        return list(self._ids)

    def read(self, stretch: Stretch) -> Records:
        """The records of a stretch.

        Raises:
            ConfigError: a file cannot be read.
        """
        parts: list[dict[str, np.ndarray]] = []
        by_file: dict[Path, list[RowGroup]] = {}
        for group in stretch.groups:
            by_file.setdefault(group.file, []).append(group)
        for file, groups in by_file.items():
            whole = [group.place for group in groups if stretch.first <= group.first and group.last <= stretch.last]
            others = [[group.place] for group in groups if group.place not in set(whole)]
            try:
                with pq.ParquetFile(file, metadata=groups[0].metadata) as opened:
                    for places in [sorted(whole), *others] if whole else others:
                        columns = self._columns(opened.read_row_groups(places, columns=self._names))
                        inside = (columns["step"] >= stretch.first) & (columns["step"] <= stretch.last)
                        parts.append(columns if inside.all() else _taken(columns, inside))
            except (OSError, pa.ArrowException) as error:
                raise ConfigError(f"{file} cannot be read ({' '.join(str(error).split())})") from None
        columns = parts[0]
        if len(parts) > 1:
            columns = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(columns)}
        columns = _counted_by_step(columns, stretch.first)
        # What arrow still owns cannot be written to, which torch would warn of.
        owned = {name: column if column.flags.writeable else column.copy() for name, column in columns.items()}
        tensors = {name: torch.from_numpy(column) for name, column in owned.items()}
        alike = torch.ones(1, dtype=torch.int64).expand(len(tensors["step"]))
        samples = Samples(
            losses=tensors["loss"],
            targets=alike,
            sources=tensors["source"].long(),
            counted=alike.bool(),
            scores=tensors["self_influence"],
            alignment=tensors["alignment"],
            reference_alignment=tensors.get(REFERENCE),
            vocabulary_scores=tensors.get(FEATURES["vocabulary"]),
            momentum_alignment=tensors.get(FEATURES["momentum"]),
        )
        return Records(tensors["step"].long(), samples, tensors["weight"])

    def _columns(self, table: pa.Table) -> dict[str, np.ndarray]:
        columns = {name: table[name].to_numpy() for name in self._names if name != "source"}
        columns["source"] = np.concatenate([self._numbered(chunk) for chunk in table["source"].chunks])
        return columns

    def _numbered(self, chunk: Any) -> np.ndarray:
        """Ids of the sources of a chunk of a column; each has a dictionary of its own."""
        if not isinstance(chunk, pa.DictionaryArray):
            chunk = chunk.dictionary_encode()
        ids = [self._ids.setdefault(name, len(self._ids)) for name in chunk.dictionary.to_pylist()]
        return np.array(ids, dtype=np.int32)[chunk.indices.to_numpy()]


def _counted(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Which samples count as they did in training, [n] bool.

    What a sample's sketch holds is not recorded, but that it was not finite: it has a gradient, and neither a weight
    nor an alignment.
    """
    counted = columns["has_targets"].copy()
    for name in {"loss", "self_influence", "alignment", "weight", REFERENCE, *FEATURES.values()} & columns.keys():
        counted &= np.isfinite(columns[name])
    left_out = (columns["weight"] == 0) & (columns["alignment"] == 0) & (columns["self_influence"] > 0)
    return counted & ~left_out


def _taken(columns: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[chosen] for name, column in columns.items()}


def _counted_by_step(columns: dict[str, np.ndarray], first: int) -> dict[str, np.ndarray]:
    """Those that count, with steps ascending, otherwise in their order."""
    counted, steps = _counted(columns), columns["step"]
    if not (steps[1:] < steps[:-1]).any():
        return columns if counted.all() else _taken(columns, counted)
    distance = steps - first
    if len(steps) and distance.max() <= np.iinfo(np.uint16).max:  # of which numpy sorts by radix
        distance = distance.astype(np.uint16)
    order = distance.argsort(kind="stable")
    return _taken(columns, order if counted.all() else order[counted[order]])
