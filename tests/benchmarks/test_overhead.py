from dataclasses import replace

import pytest

from benchmarks.overhead import measure, report, run_ranks
from benchmarks.setting import Setting
from benchmarks.variants import BASELINES, VARIANTS

TINY = Setting(hidden_size=64, layers=2, vocabulary=300, sequence_length=24, threads=1, steps=2, warmup=2)


@pytest.mark.long
def test_every_variant_with_exact_norms_takes_the_same_weighted_steps() -> None:
    variants = [name for name in VARIANTS if not name.endswith("_compiled")]  # tests/engine/test_compile.py is faster
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


def test_what_needs_whole_parameters_is_refused_under_zero_3() -> None:
    with pytest.raises(ValueError, match=r"variant vmap needs whole parameters, setting.stage is 3"):
        measure(replace(TINY, stage=3), ["plain", "vmap"])
