"""The commits of the datasets on the hub that a run streams: one of each for all ranks, and over every resume."""

import json
from pathlib import Path
from typing import Any

from presence_ds.data import DataConfig
from presence_ds.data.sources.finding import is_remote
from presence_ds.data.sources.hub import resolve
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.run_directory.layout import write_json


def pin_commits(data: DataConfig, resolved: dict[str, Any], file: Path, ranks: Ranks, *, resuming: bool) -> None:
    """Make the revision of every streamed dataset of the hub a commit, in ``data`` and in the ``resolved`` recipe.

    A branch is what it was when the run began, which ``file`` says, however far it has moved since. Another revision
    in the recipe is looked up, and the checkpoint refuses its commit.

    Args:
        resuming: whether there is a checkpoint; otherwise what ``file`` says is of no run that goes on.

    Raises:
        DataError: there is no such dataset or revision, or the hub cannot be reached.
    """
    if data.streaming is None:
        return
    groups = {"sources": data.sources, "validation_sources": data.validation_sources or []}
    commits: dict[str, str] = {}
    with ranks.agreement():
        if ranks.is_main:
            known = json.loads(file.read_text(encoding="utf-8")) if resuming and file.is_file() else {}
            for source in (source for group in groups.values() for source in group if is_remote(source)):
                key = f"{source.path}@{source.revision or 'main'}"
                if key not in commits:
                    commits[key] = known.get(key) or resolve(source)
            if commits:
                write_json(file, {**known, **commits})
    commits = ranks.broadcast(commits)
    for name, group in groups.items():
        for index, source in enumerate(group):
            if is_remote(source):
                source.revision = commits[f"{source.path}@{source.revision or 'main'}"]
                resolved["data"][name][index]["revision"] = source.revision
