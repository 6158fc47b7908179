"""Datasets of the Hugging Face hub, and folders that ``datasets`` loads: here they are arrow files on this machine.

``datasets`` downloads what it does not have yet and keeps every split as arrow files in its cache (``HF_HOME`` says
where). Those are read like arrow files of the user's own.
"""

from functools import partial
from pathlib import Path

import datasets

from presence_ds.errors import DataError


def load_files(source: str, path: str, subset: str | None, split: str, revision: str | None) -> list[tuple[Path, int]]:
    """Load a split; the arrow files that hold it in order, each with the number of rows in the files before it.

    Args:
        source: name of the source, for errors.
        path: name on the hub, or a folder.

    Raises:
        DataError: there is no such dataset, subset, split or revision, it cannot be reached or read, or it is empty.
    """
    folder = _folder(path)
    load = partial(datasets.load_dataset, name=subset, split=split, revision=revision, keep_in_memory=False)
    try:
        dataset = load(str(folder or path))
        if folder is not None and _has_changed(folder, dataset):
            again = datasets.DownloadMode.FORCE_REDOWNLOAD
            dataset = load(str(folder), download_mode=again, verification_mode="no_checks")  # against its old size
    except Exception as error:  # of datasets, huggingface_hub, pyarrow, and of the readers of every format
        cause = f": {error.__cause__}" if isinstance(error, datasets.exceptions.DatasetGenerationError) else ""
        reason = " ".join(f"{error}{cause}".split())
        raise DataError(f'source "{source}": path {path} cannot be loaded by datasets: {reason}') from error
    if len(dataset) == 0:
        raise DataError(f'source "{source}" is empty: split {split} of {path} has no rows')
    files = [Path(file["filename"]) for file in dataset.cache_files]
    sizes = dataset.info.splits[split].shard_lengths or [len(dataset)]
    return [(file, sum(sizes[:index])) for index, file in enumerate(files)]


def dataset_name(path: str) -> str:
    """What document ids begin with: a name on the hub, or the name of a folder."""
    folder = _folder(path)
    return path if folder is None else folder.resolve().name


def _folder(path: str) -> Path | None:
    folder = Path(path).expanduser()
    return folder if folder.is_dir() else None


def _has_changed(folder: Path, dataset: datasets.Dataset) -> bool:
    """Whether a file is newer than the cache; of several subsets ``datasets`` only notices changes of the first."""
    loaded = min((Path(file["filename"]).stat().st_mtime for file in dataset.cache_files), default=0.0)
    return any(file.stat().st_mtime > loaded for file in folder.rglob("*"))
