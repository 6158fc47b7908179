"""The section ``data``: values that cannot be used, and how it is written."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from presence_ds.data import DataConfig, NoiseConfig, SourceConfig, TokenizerConfig
from presence_ds.errors import ConfigError
from tests.data.corpus.corpora import MakeConfig, error_of


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
        ({"tokenizer": TokenizerConfig(vocab_size=256)}, "data.tokenizer.vocab_size is 256"),
        ({"tokenizer": TokenizerConfig(path="")}, "data.tokenizer.path is empty"),
        ({"noise": NoiseConfig(share=0.6)}, "data.noise.share is 0.6"),
        ({"noise": NoiseConfig(share=0.0)}, "data.noise.share is 0.0"),
        ({"noise": NoiseConfig(name="docs")}, 'data.noise.name "docs" is the name of a source'),
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
        noise: {share: 0.2}
        """
    )
    config = parser.instantiate(parser.parse_object({"data": section})).data
    config.validate()
    assert config.sources[1] == SourceConfig("code", format="python_packages", content="code", max_megabytes=4)
    assert config.noise == NoiseConfig(share=0.2)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "Share of a source's rows" in " ".join(capsys.readouterr().out.split())
