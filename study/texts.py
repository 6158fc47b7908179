"""Text of the study: which files a source is, and which sources, in what shares, a mixture is made of.

Files lie in a folder of the user's, under the names below; all are text that can be had from public repositories.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LANGUAGES = ("cs", "de", "en", "es", "fr", "ru", "zh")
SOURCES: dict[str, dict[str, Any]] = {  # fields of a recipe's `data.sources`; paths below the folder of texts
    "web": {"path": "c4-en/*.jsonl"},
    "wiki": {"path": "enwiki-sample/*.jsonl"},
    "books": {"path": "gutenberg/*.txt", "documents": "paragraph"},
    "speeches": {"path": "speeches/*.jsonl"},
    "news": {"path": "newstest-mono/en.txt", "documents": "line"},
    "plays": {"path": "tinyshakespeare/input.txt", "documents": "paragraph"},
    "scripture": {"path": "genesis/english-*.txt", "documents": "line"},
    "boilerplate": {"path": "web-trafilatura/pages.jsonl", "text_field": "boilerplate"},
    "danish": {"path": "fineweb-c-da/fineweb_c_dan.jsonl"},
    "repeated": {"path": "c4-en/c4_pf-decoding.jsonl"},
    **{f"news-{language}": {"path": f"newstest-mono/{language}.txt", "documents": "line"} for language in LANGUAGES},
}
LEAST = 0.95  # of the size that a source is to have
COPIES = ("shuffled", "permuted", "random")  # noise that is made of the clean documents
REPEATED = {"repeated": 0.06}  # megabytes of noise that is few documents, over and over: in its share as all others
DENSITY = {"boilerplate": 1.58, "danish": 1.58}  # tokens in a byte, beside clean English, with a tokenizer of that


@dataclass(frozen=True)
class Text:
    """A mixture.

    Attributes:
        clean: megabytes of each clean source, all of which count as they are.
        noise: kinds of `COPIES`, or sources, and the share of all training samples that each is.
        is_causal: whether a Llama predicts the next token, and not an mT5 what was cut out.
    """

    clean: dict[str, float]
    noise: dict[str, float] = field(default_factory=dict)
    is_causal: bool = True

    @property
    def weights(self) -> dict[str, float] | None:
        """Shares of the sources where sizes do not say them: in runs on text with noise that is `REPEATED`."""
        if not REPEATED.keys() & self.noise:
            return None
        rest = (1.0 - self.noise_share) / sum(self.clean.values())
        clean = {name: megabytes * rest for name, megabytes in self.clean.items()}
        return clean | {name: share for name, share in self.noise.items() if name not in COPIES}

    @property
    def noise_share(self) -> float:
        """Of all training samples."""
        return math.fsum(self.noise.values())

    def data_section(self, folder: Path, scale: float = 1.0, *, with_noise: bool = True) -> dict[str, Any]:
        """Fields ``sources`` and ``noise`` of a recipe's ``data``, of files below ``folder``.

        ``scale`` multiplies all sizes. Where a source is too small, `presence prepare` stops: shares would be others.
        """
        sizes = dict(self.clean)
        noise = self.noise if with_noise else {}
        for name, share in noise.items():
            if name in REPEATED:
                sizes[name] = REPEATED[name]
            elif name not in COPIES:
                sizes[name] = sum(self.clean.values()) * share / (1.0 - self.noise_share) / DENSITY[name]
        sources = []
        for name, megabytes in sizes.items():
            source = {"name": name, **SOURCES[name]}
            source["path"] = str(folder / source["path"])
            source["max_megabytes"] = scale * megabytes
            source["min_megabytes"] = LEAST * scale * megabytes
            sources.append(source)
        copies = [{"kind": name, "share": share} for name, share in noise.items() if name in COPIES]
        objective = {} if self.is_causal else {"objective": {"kind": "span_corruption"}}
        return {"sources": sources, "noise": copies or None} | objective


_DOUBTFUL = ("shuffled", "permuted", "random", "boilerplate", "danish")
_LANGUAGES = {f"news-{language}": 0.7 for language in LANGUAGES}
_PAIR = {"web": 3.6, "wiki": 1.8}

TEXTS = {
    "web": Text({"web": 3.6}),
    "pair": Text(_PAIR),
    "seven": Text(dict.fromkeys(("web", "wiki", "books", "speeches", "news", "plays", "scripture"), 0.36)),
    "mixed-10": Text(_PAIR, dict.fromkeys(_DOUBTFUL, 0.02)),
    "mixed-25": Text(_PAIR, dict.fromkeys(_DOUBTFUL, 0.05)),
    **{f"{kind}-25": Text(_PAIR, {kind: 0.25}) for kind in (*_DOUBTFUL, "repeated")},
    "languages": Text(_LANGUAGES, is_causal=False),
    **{f"languages-{kind}-25": Text(_LANGUAGES, {kind: 0.25}, is_causal=False) for kind in ("shuffled", "permuted")},
}
