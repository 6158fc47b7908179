"""Whether a model has a position for every token of a sample."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import PretrainedConfig

from presence_ds.data import Lengths
from presence_ds.errors import ConfigError
from presence_ds.trainer.building.vocabulary import Vocabulary, text_config

LARGEST_OFFSET = 1024  # far beyond that of any model's first position


def check_sequence_length(config: PretrainedConfig, sequence_length: int, field: str) -> None:
    """Raise `ConfigError` if the model's positions end before ``sequence_length`` tokens by its configuration."""
    longest = getattr(text_config(config), "max_position_embeddings", None)
    if longest is not None and sequence_length > longest:
        raise ConfigError(
            f"{field} is {sequence_length}, longer than the model's max_position_embeddings: "
            f"it must be at most {longest}"
        )


def check_positions(
    model: nn.Module, config: PretrainedConfig, lengths: Lengths, vocabulary: Vocabulary, field: str
) -> None:
    """Look the tokens of a sample up in the tables of ``model``, which is on the meta device.

    Learned positions may begin late: those of RoBERTa after the padding token's id.

    Raises:
        ConfigError: a table of positions ends before the sample, or positions cannot be told from padding.
    """
    longest = max(lengths.inputs, lengths.targets)
    text = text_config(config)
    tables = {
        name: table
        for name, table in model.named_modules()
        if isinstance(table, nn.Embedding)
        and table.num_embeddings != text.vocab_size
        and longest // 2 <= table.num_embeddings < longest + LARGEST_OFFSET
    }
    if not tables:
        return
    padding: int | None = getattr(text, "pad_token_id", None)
    ids = {
        name: torch.full((1, length), int(padding == 0))
        for name, length in (("input_ids", lengths.inputs), ("decoder_input_ids", lengths.targets))
    }
    calls: list[dict[str, Any]] = [{"input_ids": ids["input_ids"]}]
    if config.is_encoder_decoder:
        calls = [{**ids}, {"encoder_outputs": (torch.zeros(1, 1, 1),), "decoder_input_ids": ids["decoder_input_ids"]}]
    for call in calls:
        found = _look_up(model, tables, call, padding)
        for name, positions in found.items():
            if (excess := int(positions.max()) + 1 - tables[name].num_embeddings) > 0:
                raise ConfigError(
                    f"{field} is {lengths.inputs}, and the model's {name} has {tables[name].num_embeddings} rows, of "
                    f"which the first ones are not used: it must be at most {longest - excess}"
                )
    if padding is not None and padding in (vocabulary.bos_token_id, vocabulary.eos_token_id):
        ids["input_ids"][:, 0] = padding
        again = _look_up(model, tables, calls[0], padding)
        if any(not torch.equal(again[name], positions) for name, positions in found.items() if name in again):
            raise ConfigError(_derived(config, f"pad_token_id {padding} is BOS or EOS, which stands in text"))


def _derived(config: PretrainedConfig, found: str) -> str:
    return (
        f"model is of type {config.model_type}, which tells positions from the padding token, and {found}: give the "
        f"tokenizer a pad_token of its own, or set model.config.pad_token_id"
    )


def _look_up(
    model: nn.Module, tables: Mapping[str, nn.Embedding], call: dict[str, Any], padding: Any
) -> dict[str, Tensor]:
    """What ``model`` looks up in ``tables`` for the inputs ``call``, by name.

    The inputs are on the CPU and have values; the first operation with a weight ends the trial, as it has none.
    """
    lookups = _Lookups({id(table.weight): name for name, table in tables.items()})
    try:
        if "input_ids" in call and "token_type_ids" in signature(model.forward).parameters:  # otherwise of a buffer
            call = {**call, "token_type_ids": torch.zeros_like(call["input_ids"])}
        with torch.no_grad(), lookups:
            model(**call, use_cache=False)
    except TypeError:
        if padding is None and not lookups.found:
            raise ConfigError(_derived(model.config, "there is none")) from None
    except Exception:
        pass  # whatever comes of weights without values
    return lookups.found


class _Lookups(TorchFunctionMode):
    """Keeps the ids that embeddings are asked for, by the name of the weight; what they answer has width 1."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.found: dict[str, Tensor] = {}
        self._names = names

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.embedding or args[0].device.type != "cpu":
            return func(*args, **(kwargs or {}))
        if (name := self._names.get(id(args[1]))) is not None:
            self.found[name] = args[0].clone()
        return torch.zeros(*args[0].shape, 1)
