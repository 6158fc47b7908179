"""A corpus that several runs share: what it was made with fills a recipe in, and what contradicts it is refused."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from presence_ds.data.config import DataConfig
from presence_ds.data.corpus.manifest import check_corpus
from presence_ds.data.sources.config import SourceConfig
from presence_ds.errors import ConfigError, DataError

OF_THE_RUN = {  # not of the corpus
    *("prepared", "sources", "seed", "num_workers", "trust_remote_code", "weight", "document_mask")
}


def fill_from_prepared(config: DataConfig, field: str = "data") -> tuple[str, ...]:
    """Fill in, in place, what ``config.prepared`` was made with; nothing happens where it is None.

    A field at its default counts as left out. Afterwards ``sources`` are those of the corpus, with the weights of this
    run, in the order of the corpus. Of a filtered corpus these are the ones that it has samples of; the others may be
    named, as in the recipe that was scored.

    Returns:
        what whoever named those should know, a line each; nothing once it is filled in.

    Raises:
        ConfigError: a field says otherwise than the corpus.
        DataError: there is no such corpus, or it is damaged or of another format version.
    """
    if config.prepared is None:
        return ()
    if config.prepared == "":
        raise ConfigError(f"{field}.prepared is empty: give the folder of a prepared corpus, or null")
    manifest = check_corpus(prepared_folder(config))
    made, gone = made_with(manifest, config.prepared), filtered_away(manifest)
    named = [source.name for source in config.sources if source.name in gone]
    config.sources = _fill_sources(config, made, gone, field)
    _fill(config, made, DataConfig(), field, config.prepared)
    if not named:
        return ()
    return (f"{field}.prepared {config.prepared} has no sample left of {', '.join(named)}: it goes on without",)


def filtered_away(manifest: dict[str, Any]) -> list[str]:
    """The sources of the corpus at the beginning, noise among them, of which a filtered corpus has no sample."""
    left = manifest["report"]["train"]
    return [name for name in manifest["source_names"] if "filtered" in manifest and name not in left]


def noise_shares(manifest: dict[str, Any], name: str) -> dict[str, float]:
    """By its source name, the share of the samples that each noise has in a mixture.

    It is the share that was asked for or, of a filtered corpus, what is left of it.

    Raises:
        DataError: as `made_with`.
    """
    noises = made_with(manifest, name).noises
    if "filtered" not in manifest:
        return {noise.source: noise.share for noise in noises}
    samples = {source: report["samples"] for source, report in manifest["report"]["train"].items()}
    total = sum(samples.values())
    return {noise.source: samples[noise.source] / total for noise in noises if noise.source in samples}


def made_with(manifest: dict[str, Any], name: str) -> DataConfig:
    """The configuration that the corpus of a manifest, called ``name``, was prepared with.

    Raises:
        DataError: it has fields that this version of the package does not know.
    """
    from pydantic import TypeAdapter, ValidationError  # not for those who only ask for help

    try:
        made: DataConfig = TypeAdapter(DataConfig).validate_python(manifest["config"], extra="forbid")
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise DataError(
            f"{name} was prepared with data.{field}, which this version of the package does not know: prepare it again"
        ) from None
    return made


def prepared_folder(config: DataConfig) -> Path:
    """The folder of ``config.prepared``, which is set."""
    assert config.prepared is not None
    return Path(config.prepared).expanduser()


def _fill_sources(config: DataConfig, made: DataConfig, gone: list[str], field: str) -> list[SourceConfig]:
    """Those of the corpus but the ones that are ``gone``."""
    known = {source.name: source for source in made.sources}
    left = {name: source for name, source in known.items() if name not in gone}
    if not config.sources:
        return [replace(source, weight=None) for source in left.values()]
    weights = {}
    for index, source in enumerate(config.sources):
        where = f"{field}.sources[{index}]"
        if source.name not in known:
            raise ConfigError(
                f'{where}.name "{source.name}" is no source of data.prepared {config.prepared}: it must be one of '
                f"{list(left)}"
            )
        if source.name in weights:
            raise ConfigError(f'{field}.sources has two sources named "{source.name}": give each once')
        _fill(source, known[source.name], SourceConfig(source.name), where, str(config.prepared))
        weights[source.name] = source.weight
    if missing := [name for name in left if name not in weights]:
        raise ConfigError(
            f'{field}.sources leaves out "{missing[0]}", a source of data.prepared {config.prepared}: name all of '
            f"them, or none"
        )
    return [replace(source, weight=weights[name]) for name, source in left.items()]


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
