"""A source of documents in a recipe."""

import re
from dataclasses import dataclass
from math import inf
from typing import Literal

from presence_ds.errors import ConfigError
from presence_ds.sections import limited


@dataclass
class SourceConfig:
    """One source of documents. Every sample carries the name of its source into the scores and the statistics.

    Args:
        name: Name of the source in metrics and score records.
        path: File, folder or glob ("texts/**/*.jsonl"), or a list of them, relative to the working directory. A folder
            stands for every file below it with a known ending, links followed, but for hidden ones and notes such as
            README.md. With hub: a name on the hub ("allenai/c4"), or a folder.
            Not used by python_packages.
        format: text; jsonl, an object per line; json, an array of objects, an object of arrays, or an object per line;
            parquet; arrow, stream or file; hub, whatever load_dataset of datasets loads, downloaded once into its
            cache, or, with data.streaming, parquet, JSON, text or arrow files on the hub, read over the network; or
            python_packages, English prose and code out of the Python packages installed in this environment (nothing
            is downloaded, nothing imported). None: inferred from the files' endings (.txt .text .md, .jsonl .ndjson,
            .json, .parquet .pq, .arrow). Each may be compressed as a whole, which .gz, .zst, .bz2 or .xz at the end
            says.
        subset: Which of the configurations of a dataset of the hub ("en"). None: the only one, or its default.
        split: Which split of a dataset of the hub.
        revision: Branch, tag or commit of a dataset of the hub. None: the newest. With data.streaming, what it is when
            the run begins.
        documents: What one document is in a text file: the whole file, each line, or each paragraph (paragraphs are
            separated by blank lines).
        text_field: Field (jsonl, json) or column (parquet, arrow, hub) that holds the text.
        id_field: Field or column that holds the document's id, a string or an integer. None: the file's name and the
            line or row.
        content: What python_packages takes: the docstrings of each module, or its code without the docstrings.
        max_megabytes: Stop reading this source after so much text (10^6 bytes of UTF-8). None: read all of it.
        min_megabytes: Stop the run if this source has less text than that (10^6 bytes of UTF-8), say because files are
            missing. None: no minimum.
        weight: Share of the training samples that come from this source, relative to the weights of the other sources;
            for all training sources or for none. A source is read again, in another order, when it is through, however
            far the others are. None: every source counts with its size, and all are through at once.
        language: The language of its documents ("de"), for presence filter --by language, which goes by what
            the corpus was prepared with.
    """

    name: str
    path: str | list[str] | None = None
    format: Literal["text", "jsonl", "json", "parquet", "arrow", "hub", "python_packages"] | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    documents: Literal["file", "line", "paragraph"] = "file"
    text_field: str = "text"
    id_field: str | None = None
    content: Literal["docstrings", "code"] = "docstrings"
    max_megabytes: float | None = limited(None, above=0, most=inf)  # all of it
    min_megabytes: float | None = limited(None, above=0)
    weight: float | None = limited(None, above=0)
    language: str | None = None

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the field under ``field`` that cannot be used."""
        if not self.name:
            raise ConfigError(f"{field}.name is empty: give the source a name")
        if self.language == "":
            raise ConfigError(f"{field}.language is empty: give the language a name, or null")
        if self.format == "python_packages" and self.path is not None:
            raise ConfigError(f"{field}.path is set: python_packages reads this environment and takes no path")
        if self.format != "python_packages" and not self.path:
            raise ConfigError(f"{field}.path is not set: give a file, a folder, a glob or a list of them")
        self._validate_hub(field)
        if self.min_megabytes is not None and self.min_megabytes > (self.max_megabytes or float("inf")):
            raise ConfigError(
                f"{field}.min_megabytes is {self.min_megabytes:g}, above max_megabytes {self.max_megabytes:g}, where "
                f"reading stops: it must be at most that"
            )

    def _validate_hub(self, field: str) -> None:
        if self.format == "hub":
            if not isinstance(self.path, str):
                raise ConfigError(f"{field}.path is {self.path}: with format hub it must be one name or folder")
            if not re.fullmatch(r"\w+(\.\w+)*", self.split):
                raise ConfigError(
                    f"{field}.split is {self.split!r}: it must name a split; max_megabytes takes a part of one"
                )
            return
        for name, value, default in (
            ("subset", self.subset, None),
            ("split", self.split, "train"),
            ("revision", self.revision, None),
        ):
            if value != default:
                raise ConfigError(f"{field}.{name} is {value} and format is {self.format}: it is for format hub alone")
