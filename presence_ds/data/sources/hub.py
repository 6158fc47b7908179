"""Datasets of the Hugging Face hub, and folders that ``datasets`` loads: here they are arrow files on this machine.

``datasets`` downloads what it does not have yet and keeps every split as arrow files in its cache (``HF_HOME`` says
where). Those are read like arrow files of the user's own. What is streamed stays on the hub: ``datasets`` only says
which files a split is made of.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from presence_ds.data.readers.hub_file import HubFile, reason_of
from presence_ds.data.sources.config import SourceConfig
from presence_ds.data.sources.local_files import check_link, walk
from presence_ds.errors import DataError

if TYPE_CHECKING:  # datasets takes long to import, and most sources are files
    from datasets import Dataset

# What a dataset's card can say of how files become rows, and the readers here do not know.
CARD_OPTIONS = ("field", "encoding", "encoding_errors", "sample_by", "filters")


def load_files(source: SourceConfig) -> list[tuple[Path, int]]:
    """Load a split; the arrow files that hold it in order, each with the number of rows in the files before it.

    Raises:
        DataError: there is no such dataset, subset, split or revision, it cannot be reached or read, or it is empty; or
            the folder has links in it that ``datasets`` would leave out in silence.
    """
    import datasets

    where, folder = f'source "{source.name}": path {source.path}', folder_of(source)
    if folder is not None:
        _check_links(folder, where)
    options = {"name": source.subset, "split": source.split, "revision": source.revision, "keep_in_memory": False}
    load = partial(datasets.load_dataset, str(folder or source.path), **options)
    try:
        dataset = load()
        if folder is not None and _has_changed(folder, dataset):
            again = datasets.DownloadMode.FORCE_REDOWNLOAD
            dataset = load(download_mode=again, verification_mode="no_checks")  # against its old size
    except Exception as error:  # of datasets, huggingface_hub, pyarrow, and of the readers of every format
        cause = f": {error.__cause__}" if isinstance(error, datasets.exceptions.DatasetGenerationError) else ""
        reason = " ".join(f"{error}{cause}".split())
        raise DataError(f"{where} cannot be loaded by datasets: {reason}") from error
    if len(dataset) == 0:
        raise DataError(f'source "{source.name}" is empty: split {source.split} of {source.path} has no rows')
    files = [Path(file["filename"]) for file in dataset.cache_files]
    sizes = dataset.info.splits[source.split].shard_lengths or [len(dataset)]
    return [(file, sum(sizes[:index])) for index, file in enumerate(files)]


def list_files(source: SourceConfig) -> list[HubFile]:
    """The files of a split in the order that ``datasets`` reads them, at one commit; none of them is downloaded.

    Raises:
        DataError: there is no such dataset, subset, split or revision, the hub cannot be reached, or the rows of the
            dataset are not those of its files.
    """
    import datasets
    from huggingface_hub import HfFileSystem

    where, name, split = f'source "{source.name}"', str(source.path), source.split
    commit = resolve(source)
    root = f"hf://datasets/{name}@{commit}/"
    try:
        config = datasets.load_dataset_builder(name, name=source.subset, revision=commit).config
        urls = dict(config.data_files or {})
        listing = HfFileSystem(endpoint=datasets.config.HF_ENDPOINT)  # the instance that datasets has listed with
        folders = {url.rpartition("/")[0] for url in urls.get(split, ()) if url.startswith(root)}
        entries = [entry for folder in folders for entry in listing.ls(folder) if isinstance(entry, dict)]  # all are
        sizes = {f"hf://{entry['name']}": int(entry["size"]) for entry in entries}
    except Exception as error:  # of datasets and huggingface_hub
        raise DataError(f"{where}: path {name} cannot be listed on the hub: {reason_of(error)}") from error
    if not urls.get(split):
        raise DataError(f"{where}: split is {split}, and {name} has {', '.join(map(str, urls)) or 'none'} to stream")
    advice = "leave data.streaming out, and it is downloaded and loaded by datasets"
    usual = type(config)()
    for option in CARD_OPTIONS:
        if getattr(config, option, None) != getattr(usual, option, None):
            value = getattr(config, option)
            raise DataError(f"{where}: the card of {name} sets {option} to {value!r}: {advice}")
    if foreign := [url for url in urls[split] if url not in sizes]:
        raise DataError(f"{where}: {foreign[0]} is no file of {name} at commit {commit}: {advice}")
    return [HubFile(source.name, name, commit, url.removeprefix(root), sizes[url]) for url in urls[split]]


def resolve(source: SourceConfig) -> str:
    """The commit that the revision of a dataset on the hub is now; without one, its main branch.

    Raises:
        DataError: there is no such dataset or revision, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(str(source.path), revision=source.revision).sha)
    except Exception as error:  # of huggingface_hub, and of the HTTP client that its version uses
        at = "" if source.revision is None else f" at revision {source.revision}"
        raise DataError(
            f'source "{source.name}": path {source.path}{at} cannot be found on the hub: {reason_of(error)}'
        ) from error


def folder_of(source: SourceConfig) -> Path | None:
    """The folder that the path of a source of format hub is; None if it is a name on the hub."""
    folder = Path(str(source.path)).expanduser()
    return folder if folder.is_dir() else None


def _check_links(folder: Path, where: str) -> None:
    """Raise `DataError` for a link that leads nowhere or to a folder; ``datasets`` follows those to files alone."""
    for below, names in walk(str(folder)):
        for name in names:
            if not name.startswith("."):
                check_link(f"{below}/{name}", where)
        if below != str(folder) and Path(below).is_symlink():
            raise DataError(
                f"{where} holds {below}, a link to a folder, which datasets does not follow: link its files, or give a "
                f"path and their format in the place of hub"
            )


def _has_changed(folder: Path, dataset: "Dataset") -> bool:
    """Whether a file is newer than the cache; of several subsets ``datasets`` only notices changes of the first."""
    loaded = min((Path(file["filename"]).stat().st_mtime for file in dataset.cache_files), default=0.0)
    files = (Path(below, name) for below, names in walk(str(folder)) for name in names)
    return any(file.stat().st_mtime > loaded for file in files if file.is_file())
