"""The section ``data``: values that cannot be used, and how it is written."""

import json
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from presence_ds.commands.recipe_arguments import read_recipe
from presence_ds.commands.train import make_parser
from presence_ds.data import DataConfig, NoiseConfig, SourceConfig, TokenizerConfig
from presence_ds.data.samples.objective_config import ObjectiveConfig
from presence_ds.errors import ConfigError
from tests.data.corpus.corpora import MakeConfig, error_of

NOISES = [NoiseConfig("shuffled", 0.1), NoiseConfig("permuted", 0.2), NoiseConfig("random", 0.3)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": []}, "data.sources is empty"),
        ({"sources": [SourceConfig("", "x")]}, "data.sources[0].name is empty"),
        ({"sources": [SourceConfig("x")]}, "data.sources[0].path is not set"),
        ({"sources": [SourceConfig("x", "p", format="python_packages")]}, "data.sources[0].path is set"),
        ({"sources": [SourceConfig("x", "p", max_megabytes=0)]}, "data.sources[0].max_megabytes is 0"),
        ({"sources": [SourceConfig("x", "p"), SourceConfig("x", "q")]}, 'data.sources has two sources named "x"'),
        ({"validation_sources": []}, "data.validation_sources is empty"),
        ({"validation_fraction": 1.0}, "data.validation_fraction is 1.0"),
        ({"sequence_length": 1}, "data.sequence_length is 1"),
        ({"max_bad_share": 2.0}, "data.max_bad_share is 2.0"),
        ({"max_document_megabytes": 0.0}, "data.max_document_megabytes is 0.0"),
        ({"num_workers": -1}, "data.num_workers is -1"),
        ({"document_mask": True, "packing": "document"}, "data.document_mask is true with data.packing document"),
        (
            {"document_mask": True, "objective": ObjectiveConfig("span_corruption")},
            "data.document_mask is true with data.objective.kind span_corruption",
        ),
        ({"tokenizer": TokenizerConfig(vocab_size=256)}, "data.tokenizer.vocab_size is 256"),
        ({"tokenizer": TokenizerConfig(path="")}, "data.tokenizer.path is empty"),
        ({"noise": []}, "data.noise is empty"),
        ({"noise": [NoiseConfig(share=0.6)]}, "data.noise[0].share is 0.6"),
        ({"noise": NoiseConfig(share=0.0)}, "data.noise[0].share is 0.0"),
        (
            {"noise": [NoiseConfig("permutated")]},
            'data.noise[0].kind is "permutated": it must be one of shuffled, perm',
        ),
        ({"noise": [NoiseConfig(name="")]}, "data.noise[0].name is empty"),
        ({"noise": [NoiseConfig(name="docs")]}, 'data.noise[0].name "docs" is the name of a source'),
        ({"noise": NOISES}, "data.noise has shares of 0.6 together: they must be at most 0.5"),
        (
            {"noise": [NoiseConfig("shuffled", 0.1), NoiseConfig("random", 0.1, name="shuffled")]},
            'data.noise has two noises named "shuffled"',
        ),
        (
            {"noise": [NoiseConfig("random", 0.1), NoiseConfig("random", 0.1, name="other")]},
            "data.noise has kind random twice",
        ),
    ],
)
def test_bad_values_name_their_field(
    make_config: MakeConfig, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    assert message in error_of(make_config(**fields), tmp_path / "corpus", ConfigError)


def test_configuration_parses_from_yaml_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=DataConfig)
    section = yaml.safe_load(
        """
        sources:
          - {name: web, path: ["a/*.jsonl", b], text_field: body}
          - {name: code, format: python_packages, content: code, max_megabytes: 4}
        tokenizer: {vocab_size: 4096}
        noise:
          - {share: 0.1}
          - {kind: permuted, share: 0.3, name: cipher}
        """
    )
    config = parser.instantiate(parser.parse_object({"data": section})).data
    config.validate()
    assert config.sources[1] == SourceConfig("code", format="python_packages", content="code", max_megabytes=4)
    assert config.noises == [NoiseConfig("shuffled", 0.1, "shuffled"), NoiseConfig("permuted", 0.3, "cipher")]
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "Share of a source's rows" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("given", ["{share: 0.3, name: worse}", "[{share: 0.3, name: worse}]"])
def test_one_noise_may_stand_for_a_list_of_it(given: str, tmp_path: Path) -> None:
    """As recipes have it that were written when there was one kind; the command line overrides both forms."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {{noise: {given}}}")
    parser = make_parser()

    def noises(*options: str) -> list[NoiseConfig]:
        return read_recipe(parser, parser.parse_args([str(recipe), *options]))[0].data.noises

    assert noises() == [NoiseConfig("shuffled", 0.3, "worse")]
    assert noises("--data.noise.share", "0.1") == [NoiseConfig("shuffled", 0.1, "worse")]
    two = [{"kind": "random", "share": 0.1, "name": "dice"}, {"kind": "shuffled", "share": 0.2, "name": "words"}]
    assert noises(f"--data.noise={json.dumps(two)}") == [NoiseConfig(**one) for one in two]  # type: ignore[arg-type]
    assert noises("--data.noise=null") == []
