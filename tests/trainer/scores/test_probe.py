"""Means and AUCs against scipy and all pairs, and their intervals against a bootstrap of one draw after the other."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from presence_ds.trainer.scores import probe as probe_module
from presence_ds.trainer.scores.probe import Source, auc, probe


def source(seed: int, documents: int, shift: float, rounded: bool) -> Source:
    """Scores that have most of their spread between documents, of one to five samples each."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 6, documents)
    ids = np.repeat(np.arange(documents), sizes)
    scores = np.exp(generator.normal(shift, 1.0, documents)[ids] + 0.3 * generator.normal(size=len(ids)))
    return Source(np.round(scores) if rounded else scores, ids, 0)


def pairs(clean: NDArray[np.float64], noisy: NDArray[np.float64]) -> float:
    difference = noisy[:, None] - clean[None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


@pytest.mark.parametrize("rounded", [False, True])
def test_auc(rounded: bool) -> None:
    clean, noisy = source(1, 300, 0.0, rounded).scores, source(2, 200, 0.5, rounded).scores
    found = auc(clean, noisy)
    assert found == pytest.approx(pairs(clean, noisy), abs=1e-12)
    assert found == pytest.approx(mannwhitneyu(noisy, clean).statistic / (len(clean) * len(noisy)), abs=1e-12)
    assert auc(noisy, clean) == pytest.approx(1 - found, abs=1e-12)


def one_after_the_other(clean: Source, noisy: Source, draws: int) -> dict[str, NDArray[np.float64]]:
    """As is written in textbooks: documents with replacement, all their samples, the figure."""
    generator = np.random.default_rng(99)
    found: dict[str, list[float]] = {name: [] for name in ("clean", "noisy", "ratio", "auc")}
    for _ in range(draws):
        drawn = []
        for one in (clean, noisy):
            number = int(one.documents.max()) + 1
            chosen = generator.integers(0, number, number)
            drawn.append(np.concatenate([one.scores[one.documents == document] for document in chosen]))
        means = [float(scores.mean()) for scores in drawn]
        for name, value in zip(found, (*means, means[1] / means[0], pairs(*drawn)), strict=True):
            found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize(("groups", "bins"), [(2048, 2048), (40, 16)])
def test_intervals(groups: int, bins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with several documents to a group and several scores to a bin; samples of a document are drawn together."""
    monkeypatch.setattr(probe_module, "GROUPS", groups)
    monkeypatch.setattr(probe_module, "BINS", bins)
    clean, noisy = source(1, 80, 0.0, False), source(2, 60, 0.5, False)
    expected = one_after_the_other(clean, noisy, 1500)
    found = probe(clean, noisy, 4000, 0)
    for name, values in expected.items():
        spread = values.std()
        tolerance = (0.2 if groups > 80 else 0.6) * spread
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[name]["low"] == pytest.approx(low, abs=tolerance), name
        assert found[name]["high"] == pytest.approx(high, abs=tolerance), name
        assert found[name]["low"] < found[name]["estimate"] < found[name]["high"]
    alone = Source(clean.scores, np.arange(len(clean.scores)), 0)  # as if samples were independent
    narrow = probe(alone, noisy, 4000, 0)["clean"]
    assert narrow["high"] - narrow["low"] < 0.8 * (found["clean"]["high"] - found["clean"]["low"])


def test_intervals_hold_what_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 80 experiments about 95 % have the truth in theirs."""
    monkeypatch.setattr(probe_module, "BINS", 128)
    truth = float(np.exp(0.5 * (1.0 + 0.3**2)))
    hits = 0
    for seed in range(80):
        found = probe(source(seed, 150, 0.0, False), source(1000 + seed, 50, 0.0, False), 200, seed)
        hits += found["auc"]["low"] < 0.5 < found["auc"]["high"]
        hits += found["clean"]["low"] < truth < found["clean"]["high"]
    assert 0.87 < hits / 160 <= 1.0


def test_the_same_seed_gives_the_same() -> None:
    clean, noisy = source(1, 80, 0.0, False), source(2, 60, 0.5, False)
    assert probe(clean, noisy, 300, 4) == probe(clean, noisy, 300, 4)
    assert probe(clean, noisy, 300, 4) != probe(clean, noisy, 300, 5)
    assert set(probe(clean, noisy, 0, 4)["auc"]) == {"estimate"}


def test_one_document_has_no_interval() -> None:
    """All its draws are the same one."""
    book, noisy = source(1, 1, 0.0, False), source(2, 60, 0.5, False)
    with_interval = {name for name, figures in probe(book, noisy, 100, 0).items() if "low" in figures}
    assert with_interval == {"noisy"}
    assert not any("low" in figures for figures in probe(book, source(3, 1, 0.5, False), 100, 0).values())


def test_means_of_nothing() -> None:
    zero = Source(np.zeros(5), np.arange(5), 0)
    found = probe(zero, source(2, 60, 0.5, False), 100, 0)
    assert found["ratio"]["estimate"] is None
    assert found["auc"]["estimate"] == 1.0
