"""A prepared corpus with some of the rows of another."""

import hashlib
import json
import shutil
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from presence_ds.data.corpus.lock import reading, writing
from presence_ds.data.corpus.manifest import (
    FORMAT_VERSION,
    TOKENIZER_FOLDER,
    TRAIN_FILE,
    VALIDATION_FILE,
    check_corpus,
    check_replaceable,
    is_prepared,
    read_manifest,
    write_manifest,
)
from presence_ds.data.corpus.report import SourceReport
from presence_ds.data.corpus.rows import StoredRows
from presence_ds.data.corpus.storage import bring_back, replaced_when_complete
from presence_ds.errors import DataError


def write_filtered(
    parent: Path,
    manifest: dict[str, Any],
    stored: StoredRows,
    rows: NDArray[np.int64],
    output: Path,
    *,
    rule: dict[str, Any],
    scores: dict[str, Any],
    verdicts: dict[str, Any] | None = None,
) -> bool:
    """Write a corpus of ``rows`` of the train part of ``parent``, and all the rest of it, to ``output``.

    Its manifest says under ``filtered`` what it was made ``from``, what was there ``unfiltered`` (the corpus at the
    beginning, whose rows `UNFILTERED_ROW` counts), and the ``rule``, the ``scores`` and the ``verdicts`` that it goes
    by, plain values all. A corpus that is already there is kept, if it was made by the same rule on scores of the same
    ``digest``.

    Args:
        manifest: of ``parent``, whose rows are ``stored``.
        rows: ascending; not of noise alone.

    Returns:
        whether it was written.

    Raises:
        DataError: ``output`` holds something else, another process writes it, or ``parent`` is damaged or replaced.
    """
    parent, output = parent.resolve(), output.resolve()
    if output == parent:
        raise DataError(f"{output} is the corpus that is filtered, which stays: name a new folder")
    fingerprint = _fingerprint(manifest, rows, rule, scores["digest"])
    with closing(reading(parent)):
        if check_corpus(parent)["digest"] != manifest["digest"]:
            raise DataError(f"{parent} was replaced meanwhile: try again")
        if is_prepared(output, fingerprint):
            return False
        with writing(output):
            bring_back(output)
            check_replaceable(output)
            if read_manifest(output) is not None:
                raise DataError(f"{output} holds a corpus that was made otherwise: name a new folder")
            left = _what_is_left(manifest, parent, stored, rows)
            left["filtered"] |= {"rule": rule, "scores": scores, "verdicts": verdicts}
            with replaced_when_complete(output) as work:
                shutil.copytree(parent / TOKENIZER_FOLDER, work / TOKENIZER_FOLDER)
                shutil.copyfile(parent / VALIDATION_FILE, work / VALIDATION_FILE)
                stored.write(rows, work / TRAIN_FILE)
                write_manifest(work, left | {"fingerprint": fingerprint})
    return True


def _fingerprint(manifest: dict[str, Any], rows: NDArray[np.int64], rule: dict[str, Any], scores: str) -> str:
    content = json.dumps([FORMAT_VERSION, "filtered", manifest["digest"], rule, scores], sort_keys=True)
    return hashlib.sha256(content.encode() + rows.tobytes()).hexdigest()


def _what_is_left(
    manifest: dict[str, Any], parent: Path, stored: StoredRows, rows: NDArray[np.int64]
) -> dict[str, Any]:
    """The manifest of ``rows`` of the corpus of ``manifest``, but for its files and fingerprint."""
    origin = {"path": str(parent), "digest": manifest["digest"], "rows": len(stored)}
    before = manifest.get("filtered")
    return {
        "format_version": FORMAT_VERSION,
        "source_names": manifest["source_names"],
        "report": manifest["report"] | {"train": _report(manifest, stored, rows)},
        "config": manifest["config"],  # of what the recipe that was prepared says
        "filtered": {
            "from": origin if before is None else origin | {"filtered": before},
            "unfiltered": origin if before is None else before["unfiltered"],
        },
    }


def _report(manifest: dict[str, Any], stored: StoredRows, rows: NDArray[np.int64]) -> dict[str, Any]:
    """`SourceReport` of what is left of every source."""
    length, reports = manifest["report"]["sequence_length"], {}
    documents, tokens = stored.documents()[rows], stored.tokens()[rows]
    sources = stored.table["source_id"].to_numpy()[rows]
    for number in np.unique(sources).tolist():
        own = sources == number
        samples, total = int(own.sum()), int(tokens[own].sum())
        reports[manifest["source_names"][number]] = asdict(
            SourceReport(
                documents=len(np.unique(documents[own])),
                tokens=total,
                samples=samples,
                padding=samples * length - total,
            )
        )
    return reports
