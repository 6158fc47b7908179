from dataclasses import replace

import pytest
import torch

from benchmarks.overhead import measure, report, run_ranks
from benchmarks.setting import Setting
from benchmarks.variants import BASELINES, PEERS, VARIANTS

TINY = Setting(hidden_size=64, layers=2, vocabulary=300, sequence_length=24, threads=1, steps=2, warmup=2)


@pytest.mark.long
def test_every_variant_with_exact_norms_takes_the_same_weighted_steps() -> None:
    # tests/engine/test_compile.py is faster with those that are compiled
    variants = [name for name in VARIANTS if name not in PEERS and not name.endswith("_compiled")]
    found = run_ranks(TINY, variants)
    assert {name: len(seconds) for name, seconds in found["seconds"].items()} == dict.fromkeys(variants, 2)
    # the scores are those of the fourth step: three wrongly weighted ones before it would show in them
    ours = found["scores"]["one_pass_exact"]
    for name in BASELINES:
        assert found["scores"][name] == pytest.approx(ours, rel=1e-5), name
    assert found["scores"]["two_pass_projected"] == pytest.approx(found["scores"]["one_pass_projected"], rel=1e-5)
    assert found["scores"]["one_pass_projected"] != pytest.approx(ours, rel=1e-3)


@pytest.mark.long
def test_a_measurement_under_zero_3_on_two_ranks() -> None:
    setting = replace(TINY, stage=3, ranks=2, precision="bf16", keep_freed=True)
    row = measure(setting, ["plain", "one_pass_projected"])
    assert row["setting"] == setting.as_dict()
    assert row["variants"]["plain"]["ratio"] == 1
    ours = row["variants"]["one_pass_projected"]
    assert ours["quartiles"][0] <= ours["quartiles"][1]
    assert ours["memory_mib"] > 1
    line = report([row]).splitlines()[4]
    assert line.startswith("| 0 M | bf16 | 24 | 4 | 300 | 3 | 2 | keeps |")
    assert f"{ours['ratio']:.2f} (" in line


@pytest.mark.long
def test_dattri_has_our_norms_and_takes_our_steps() -> None:
    pytest.importorskip("dattri_llm")
    found = run_ranks(TINY, ["one_pass_exact", "dattri", "dattri_selection"])["scores"]
    assert found["dattri"] == pytest.approx(found["one_pass_exact"], rel=1e-5)
    # ⟨g_i, Σ_j g_j⟩, so that one's own norm is in it
    assert found["dattri_selection"] != pytest.approx(found["dattri"], rel=1e-3)


@pytest.mark.long
def test_bergson_has_the_norms_of_linear_layers() -> None:
    """Without projections, of the first step; with them it is near the truth."""
    pytest.importorskip("bergson")
    first = replace(TINY, steps=1, warmup=0)
    exact = run_ranks(replace(first, projection_dim=0), ["bergson", "bergson_unweighted"])["scores"]
    torch.manual_seed(0)
    (ids,) = torch.randint(TINY.vocabulary, (1, TINY.batch_size, TINY.sequence_length))
    model = TINY.model()
    weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    expected = []
    for row in ids:
        gradients = torch.autograd.grad(model(input_ids=row[None], labels=row[None]).loss, weights)
        expected.append(sum(gradient.square().sum().item() for gradient in gradients))
    for name, scores in exact.items():
        assert scores == pytest.approx(expected, rel=1e-4), name
    projected = run_ranks(first, ["bergson"])["scores"]["bergson"]
    assert projected == pytest.approx(expected, rel=0.4)


def test_what_needs_whole_parameters_is_refused_under_zero_3() -> None:
    with pytest.raises(ValueError, match=r"variant vmap needs whole parameters, setting.stage is 3"):
        measure(replace(TINY, stage=3), ["plain", "vmap"])
