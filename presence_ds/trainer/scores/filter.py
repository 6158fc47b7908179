"""Scores and a rule → which samples of the corpus are kept, and the corpus of those."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from presence_ds.data.corpus.filtered import write_filtered
from presence_ds.data.corpus.manifest import check_corpus
from presence_ds.data.corpus.prepared import filtered_away, made_with
from presence_ds.data.corpus.rows import StoredRows
from presence_ds.data.corpus.texts import texts
from presence_ds.errors import ConfigError, DataError
from presence_ds.trainer.scores.layout import Scores, open_scores
from presence_ds.trainer.scores.rule import KEPT, REASONS, SCORE, VERDICT, Rule, choose
from presence_ds.trainer.scores.samples import ScoredSamples, read_samples, scored_rows_of
from presence_ds.trainer.scores.where import rows_where


class Vanished(NamedTuple):
    """A source or language, ``kind``, of which all ``samples`` go; ``at_the_cut``: ``by`` its kind would keep some."""

    kind: str
    name: str
    samples: int
    at_the_cut: bool


@dataclass(frozen=True)
class Selection:
    """What a rule keeps of a corpus.

    Attributes:
        corpus: the folder of the corpus.
        manifest: its.
        languages: by source name, of the sources that state one.
        reasons: [n], of every sample an index of `REASONS`.
    """

    rule: Rule
    scores: Scores
    corpus: Path
    manifest: dict[str, Any]
    stored: StoredRows
    samples: ScoredSamples
    languages: dict[str, str]
    reasons: NDArray[np.uint8]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """[n]."""
        return self.reasons == KEPT

    def write(self, output: Path, verdicts: dict[str, Any] | None = None) -> bool:
        """Write the corpus of what is kept; as `write_filtered`. ``verdicts``: where ``dropped_sources`` are from."""
        scores = {
            "path": str(self.scores.folder.absolute()),
            "digest": self.scores.digest(),
            **{name: self.scores.manifest.get(name) for name in ("settings", "checkpoints")},
        }
        rule, rows = asdict(self.rule), np.flatnonzero(self.kept)
        return write_filtered(
            self.corpus, self.manifest, self.stored, rows, output, rule=rule, scores=scores, verdicts=verdicts
        )

    def texts(self, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
        """The text of what is kept; as `presence_ds.data.corpus.texts.texts`, whose error comes at once."""
        packing, rows = self.manifest["config"]["packing"], np.flatnonzero(self.kept)
        return texts(self.stored, rows, packing, tokenizer, self.samples.source_names)

    def vanished(self) -> list[Vanished]:
        """Sources, then languages, of which nothing is left, but for what the verdicts drop."""
        samples, groups = self.samples, [("source", name, {name}) for name in self.samples.source_names]
        groups += [
            ("language", language, {name for name, own in self.languages.items() if own == language})
            for language in dict.fromkeys(self.languages.values())
        ]
        had, left, cut = (
            np.bincount(samples.source_ids[which], minlength=len(samples.source_names))
            for which in (self.reasons != VERDICT, self.kept, self.reasons == SCORE)
        )
        found = []
        for kind, name, sources in groups:
            own = [index for index, source in enumerate(samples.source_names) if source in sources]
            if had[own].any() and not left[own].any():
                found.append(Vanished(kind, name, int(had[own].sum()), bool(cut[own].any())))
        return found


def select(rule: Rule, folder: Path, corpus: Path | None = None) -> Selection:
    """What ``rule`` keeps of the corpus that the scores in ``folder`` are of, or of one that was filtered from it.

    Args:
        corpus: None: where the corpus was when it was scored.

    Raises:
        ConfigError: the rule cannot be used, or keeps nothing or everything.
        DataError: the scores are incomplete, damaged, or of another corpus.
    """
    rule.validate()
    scores = open_scores(folder)
    corpus = Path(scores.manifest["corpus"]["path"]) if corpus is None else corpus
    manifest = check_corpus(corpus)
    stored = StoredRows(corpus)
    scored_rows = scored_rows_of(scores, corpus, manifest, stored)
    names = manifest["source_names"]
    if rule.dropped_sources and not set(rule.dropped_sources) & set(names):
        raise ConfigError(
            f"verdicts has {', '.join(rule.dropped_sources)} to drop: {corpus} has none of them, but {', '.join(names)}"
        )
    samples = read_samples(scores, rule.column, stored, scored_rows, names)
    ranks = rule.keep is not None or rule.max_per_document is not None
    if ranks and not samples.counted.any():
        raise ConfigError(f"column is {rule.column}: {folder} has it of no sample; score with a signal that takes it")
    config = made_with(manifest, str(corpus))
    sources = [source for source in config.sources if source.name not in filtered_away(manifest)]
    languages = {source.name: source.language for source in sources if source.language is not None}
    reasons = choose(
        rule,
        samples.scores,
        _groups(rule, names, languages, [source.name for source in sources])[samples.source_ids],
        counted=samples.counted if ranks else None,
        passing=None if rule.where is None else rows_where(scores, rule.where)[scored_rows],
        documents=None if rule.max_per_document is None else stored.documents(),
        dropped=np.isin(np.array(names), rule.dropped_sources)[samples.source_ids] if rule.dropped_sources else None,
    )
    selection = Selection(rule, scores, corpus, manifest, stored, samples, languages, reasons)
    _check_selection(selection, {noise.source for noise in config.noises})
    return selection


def _groups(rule: Rule, names: list[str], languages: dict[str, str], stating: list[str]) -> NDArray[np.int32]:
    """Of every source, which group it counts with; noise, which may be of several languages, is one of its own."""
    if rule.by is None:
        return np.zeros(len(names), np.int32)
    if rule.by == "source":
        return np.arange(len(names), dtype=np.int32)
    if missing := [name for name in stating if name not in languages]:
        raise ConfigError(
            f'by is language, and the corpus does not say which source "{missing[0]}" is of: prepare it with '
            f"data.sources[].language, or use by source"
        )
    keys = [("language", languages[name]) if name in languages else ("source", name) for name in names]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int32)


def _check_selection(selection: Selection, noises: set[str]) -> None:
    samples, kept = selection.samples, selection.kept
    counts = np.bincount(selection.reasons, minlength=len(REASONS)).tolist()
    went = ", ".join(f"{count:,} by {name}" for name, count in zip(REASONS[1:], counts[1:], strict=True) if count)
    if not kept.any():
        raise ConfigError(f"nothing would be left of {len(samples):,} samples ({went}): nothing is written")
    if kept.all():
        raise ConfigError(f"all {len(samples):,} samples would be kept: nothing is written")
    left = {samples.source_names[number] for number in np.unique(samples.source_ids[kept]).tolist()}
    if left <= noises:
        raise DataError(
            f"only noise would be left ({', '.join(sorted(left))}), which is no corpus: keep more, or give by source"
        )
