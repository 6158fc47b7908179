from pathlib import Path
from statistics import mean

import pytest
import torch

from benchmarks.document import write_section
from benchmarks.estimators import relative_error, report, spearman, study
from benchmarks.families import FAMILIES, parameter_sets
from benchmarks.measures import auc, ranks
from benchmarks.text import corrupt_spans


@pytest.mark.parametrize("name", ["llama", "mt5"])
def test_more_projections_come_closer_to_the_exact_scores(name: str, tmp_path: Path) -> None:
    document = tmp_path / "estimators.md"
    document.write_text("before\n<!-- estimators -->\nold\n<!-- /estimators -->\nafter\n")
    results = study(families=[name], short=True, document=document)
    for state, found in results[name].items():
        exact = found.held_out.exact["all"]
        estimates: dict[int, list[torch.Tensor]] = {}  # several projections per k: one alone may be a lucky one
        for (k, _), estimate in found.held_out.projected.items():
            estimates.setdefault(k, []).append(estimate)
        correlations = [mean(spearman(one, exact) for one in estimates[k]) for k in sorted(estimates)]
        errors = [torch.cat([relative_error(one, exact) for one in estimates[k]]).median() for k in sorted(estimates)]
        assert correlations == sorted(correlations), (state, correlations)
        assert correlations[-1] > 0.6, (state, correlations)
        assert errors == sorted(errors, reverse=True), (state, errors)
    random, trained = results[name]["random"].held_out, results[name]["trained"].held_out
    assert trained.losses.mean() < random.losses.mean() - 0.3
    text = document.read_text()
    assert report(results) in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")


def test_sets_of_parameters_are_what_they_are_called() -> None:
    for name, family in FAMILIES.items():
        model = family.build(300)
        names = {parameter: path for path, parameter in model.named_parameters()}
        found = parameter_sets(model)
        blocks = found["attention"] | found["feed-forward"]
        assert not found["attention"] & found["feed-forward"], name
        assert found["first blocks"] & found["last blocks"] == set(), name
        # position embeddings are the one thing that is none of these
        rest = set(names) - blocks - found["norms"] - found["embedding"] - found["head"]
        assert {names[parameter] for parameter in rest} <= {"transformer.wpe.weight"}, name


def test_ranks_and_separation() -> None:
    assert ranks(torch.tensor([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    low, high = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0, 0.5])
    assert auc(low, high) == pytest.approx(3.5 / 6)
    assert spearman(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([-1.0, 0.0, 0.5])) == pytest.approx(1.0)


def test_corrupted_spans_hold_every_token_once() -> None:
    ids = torch.arange(3 * 64).view(3, 64)
    batch = corrupt_spans(ids, vocabulary=1000, seed=0)
    for row, inputs, labels in zip(ids, batch["input_ids"], batch["labels"], strict=True):
        parts = {}
        for token in labels.tolist():
            if token > 900:
                current = parts.setdefault(token, [])
            else:
                current.append(token)
        restored = [t for token in inputs.tolist() for t in parts.get(token, [token])]
        assert restored == row.tolist()
        assert len(parts) == 3


def test_a_document_without_a_place_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "empty.md"
    document.write_text("nothing\n")
    with pytest.raises(ValueError, match="no lines <!-- estimators -->"):
        write_section(document, "estimators", "text")
