"""The short form of `python -m benchmarks.alignments`, and what it takes for exact."""

from pathlib import Path

import pytest
import torch

from benchmarks.alignments import Sketch, exact, gains_of, measure, report, study
from benchmarks.text import spoiled
from tests.models import VOCABULARY, tiny_model, tokens


def test_wider_sketches_come_closer(tmp_path: Path) -> None:
    document = tmp_path / "estimators.md"
    document.write_text("before\n<!-- alignments -->\nold\n<!-- /alignments -->\nafter\n")
    found = study(short=True, document=document)
    alignment = found.samples.alignment
    assert alignment is not None
    errors = {sketch: estimates[:, 1] - alignment for sketch, estimates in found.estimates.items()}
    spread = {sketch: error.square().mean().sqrt().item() for sketch, error in errors.items()}
    assert spread[Sketch(16)] < spread[Sketch(2)] / 2
    assert spread[Sketch(16)] < spread[Sketch(16, 1024)] < spread[Sketch(16, 16)]
    bias = errors[Sketch(16)].mean((1, 2))
    assert bias.mean().abs() < 4 * bias.std() / len(bias) ** 0.5
    assert found.widths[Sketch(16, 1024)] == 1024
    assert found.widths[Sketch(2)] < found.widths[Sketch(16)] < found.widths[None]
    text = document.read_text()
    assert report(found) in text
    assert "old" not in text


@pytest.mark.usefixtures("one_process")
def test_sketches_as_wide_as_the_gradients_are_exact() -> None:
    ids = tokens(2, 6, 12)
    ids[:, 1:, 4:] = ids[:, :1, 4:]  # something in common: no weights have a gain where there is nothing
    whole = Sketch(1000)
    found = measure(tiny_model("llama", tied=False), [{"input_ids": x, "labels": x} for x in ids], [whole], 1)
    norms, alignment = found.samples.scores, found.samples.alignment
    assert norms is not None
    assert alignment is not None
    torch.testing.assert_close(found.estimates[whole][0], torch.stack([norms, alignment]), rtol=1e-4, atol=1e-5)
    assert found.widths[whole] == found.widths[None]
    gains, _ = gains_of(found.samples, norms, alignment)
    assert gains[0] == pytest.approx(1.0)
    torch.testing.assert_close(gains, gains_of(found.samples, *found.estimates[whole][0])[0], rtol=1e-3, atol=1e-3)


def test_exact_figures_are_those_of_their_definition() -> None:
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    norms, alignment = exact(rows)
    for i, row in enumerate(rows.double()):
        others = torch.cat([rows[:i], rows[i + 1 :]]).double()
        assert norms[i] == pytest.approx((row @ row).item())
        assert alignment[i] == pytest.approx((row @ others.mean(0)).item())


def test_a_half_of_the_text_is_spoiled() -> None:
    samples = tokens(400, 16)
    found = spoiled(samples, VOCABULARY)
    clean = (found == samples).all(1)
    shuffled = (found.sort(1).values == samples.sort(1).values).all(1) & ~clean
    assert 0.4 < clean.float().mean() < 0.6
    assert 0.15 < shuffled.float().mean() < 0.35
    rest = ~clean & ~shuffled
    cipher = dict(zip(samples[rest].flatten().tolist(), found[rest].flatten().tolist(), strict=True))
    assert [cipher[token] for token in samples[rest][0].tolist()] == found[rest][0].tolist()
    assert len(set(cipher.values())) == len(cipher)
