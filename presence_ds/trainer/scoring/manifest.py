"""What scores.json says: everything that has to be the same for two shards, or two starts, to write into one folder."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from presence_ds.data import Corpus
from presence_ds.data.corpus.manifest import check_corpus
from presence_ds.engine.config import PresenceConfig
from presence_ds.engine.inference import OF_SCORES, scoring_config
from presence_ds.trainer.recipe.plan import Plan
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.scores.layout import FORMAT_VERSION
from presence_ds.trainer.scoring.models import ScoringModel
from presence_ds.trainer.scoring.request import Request


def make_manifest(
    request: Request,
    recipe: Recipe,
    plan: Plan,
    models: Iterable[ScoringModel],
    corpus: Corpus | None = None,
    where: Path | None = None,
) -> dict[str, Any]:
    """scores.json; without a corpus, what is known before there is one."""
    data = recipe.data
    settings: dict[str, Any] = {
        "objective": {"kind": "causal"} if data.objective.is_causal else asdict(data.objective),
        "sequence_length": data.sequence_length,
        "document_mask": data.document_mask,
    }
    if not data.objective.is_causal:
        settings["data_seed"] = data.seed  # of the spans
    if corpus is not None:
        vocabulary = json.dumps(sorted(corpus.tokenizer.get_vocab().items()))
        settings["tokenizer"] = hashlib.sha256(vocabulary.encode()).hexdigest()
    settings |= _settings(recipe.presence)
    settings |= {"precision": plan.precision, "reference": recipe.reference.sources or None}
    manifest = {
        "format_version": FORMAT_VERSION,
        "part": "train",
        "settings": settings,
        "checkpoints": [model.described() for model in models],
        "rows_per_file": request.rows_per_file,
    }
    if corpus is None or where is None:
        return manifest
    digest = check_corpus(where)["digest"]
    return manifest | {"corpus": {"path": str(where), "digest": digest, "rows": len(corpus.train)}}


def _settings(presence: PresenceConfig) -> dict[str, Any]:
    """What decides a score, as plain values; what has no effect is null."""
    scored = scoring_config(presence)
    settings: dict[str, Any] = {"signal": "self_influence" if scored.computes_gradients else "loss"}
    settings |= {name: getattr(presence, name) for name in OF_SCORES} | {"granularity": presence.granularity}
    if not scored.computes_gradients:
        settings |= dict.fromkeys(("layers", "estimator", "projection_dim", "seed"))
    elif presence.estimator == "exact":
        settings["projection_dim"] = None
    if not presence.uses_reference:
        settings["alignment_dim"] = None
        if presence.estimator == "exact":
            settings["seed"] = None
    return settings
