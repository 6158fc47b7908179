"""A corpus that several runs share: what it was made with fills a recipe in, and what contradicts it is refused."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from presence_ds.data.config import DataConfig
from presence_ds.data.corpus.manifest import check_corpus
from presence_ds.data.sources.config import SourceConfig
from presence_ds.errors import ConfigError, DataError

OF_THE_RUN = {"prepared", "sources", "seed", "num_workers", "trust_remote_code", "weight"}  # not of the corpus


def fill_from_prepared(config: DataConfig, field: str = "data") -> None:
    """Fill in, in place, what ``config.prepared`` was made with; nothing happens where it is None.

    A field at its default counts as left out. Afterwards ``sources`` are those of the corpus, with the weights of this
    run, in the order of the corpus.

    Raises:
        ConfigError: a field says otherwise than the corpus.
        DataError: there is no such corpus, or it is damaged or of another format version.
    """
    if config.prepared is None:
        return
    if config.prepared == "":
        raise ConfigError(f"{field}.prepared is empty: give the folder of a prepared corpus, or null")
    from pydantic import TypeAdapter, ValidationError  # not for those who only ask for help

    written = check_corpus(prepared_folder(config))["config"]
    try:
        made = TypeAdapter(DataConfig).validate_python(written, extra="forbid")
    except ValidationError as error:
        name = ".".join(map(str, error.errors()[0]["loc"]))
        raise DataError(
            f"{config.prepared} was prepared with data.{name}, which this version of the package does not know: "
            f"prepare it again"
        ) from None
    config.sources = _fill_sources(config, made, field)
    _fill(config, made, DataConfig(), field, config.prepared)


def prepared_folder(config: DataConfig) -> Path:
    """The folder of ``config.prepared``, which is set."""
    assert config.prepared is not None
    return Path(config.prepared).expanduser()


def _fill_sources(config: DataConfig, made: DataConfig, field: str) -> list[SourceConfig]:
    known = {source.name: source for source in made.sources}
    if not config.sources:
        return [replace(source, weight=None) for source in known.values()]
    weights = {}
    for index, source in enumerate(config.sources):
        where = f"{field}.sources[{index}]"
        if source.name not in known:
            raise ConfigError(
                f'{where}.name "{source.name}" is no source of data.prepared {config.prepared}: it must be one of '
                f"{list(known)}"
            )
        if source.name in weights:
            raise ConfigError(f'{field}.sources has two sources named "{source.name}": give each once')
        _fill(source, known[source.name], SourceConfig(source.name), where, str(config.prepared))
        weights[source.name] = source.weight
    if missing := [name for name in known if name not in weights]:
        raise ConfigError(
            f'{field}.sources leaves out "{missing[0]}", a source of data.prepared {config.prepared}: name all of '
            f"them, or none"
        )
    return [replace(source, weight=weights[name]) for name, source in known.items()]


def _fill(given: Any, made: Any, default: Any, field: str, prepared: str) -> None:
    """Put what ``made`` has in the place of every field of ``given`` that is at its default."""
    for name in (item.name for item in fields(given) if item.name not in OF_THE_RUN):
        ours, theirs, left_out = (getattr(config, name) for config in (given, made, default))
        if is_dataclass(left_out):
            _fill(ours, theirs, left_out, f"{field}.{name}", prepared)
        elif ours == left_out:
            setattr(given, name, theirs)
        elif ours != theirs:
            raise ConfigError(
                f"{field}.{name} is {ours}, and data.prepared {prepared} was made with {theirs}: leave it out"
            )
