"""The DeepSpeed settings as they come in: a JSON file or a dict, read once and tried by DeepSpeed itself."""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from presence_ds.errors import ConfigError

BATCH_SIZES = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
IGNORED = {  # sections that DeepSpeed takes and that do nothing, or something else, in an engine's training loop
    "data_efficiency": "the samples come from the loop, in its own order",
    "pipeline": "PRESENCE works without pipeline parallelism",
    "weight_quantization": "the model is trained as it is",
    "autotuning": "batch sizes and the ZeRO stage are the ones stated",
}


def read_settings(path: Path, field: str) -> dict[str, Any]:
    """The DeepSpeed JSON of a file.

    Args:
        field: what an error calls the file.

    Raises:
        ConfigError: the file cannot be read, is no JSON object, or has a name twice in one object, of which the parser
            would keep the last.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f'{field} is {path}: "{twice}" stands twice in one object: give it once')
        return dict(pairs)

    try:
        settings = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except FileNotFoundError:
        raise ConfigError(f"{field}: {path} does not exist: give the path of a DeepSpeed JSON") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{field} is {path}: it cannot be read ({error})") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{field} is {path}: it is not JSON ({error})") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{field} is {path}: it must hold a JSON object")
    return settings


def try_settings(settings: Mapping[str, Any]) -> None:
    """Let DeepSpeed parse ``settings``, apart from the batch sizes, which need the number of ranks.

    Raises:
        ConfigError: DeepSpeed refuses them; a value is "auto", which only the Hugging Face Trainer fills in; or a
            section is enabled that training with an engine leaves without effect.
    """
    from deepspeed import DeepSpeedConfig, DeepSpeedConfigError
    from pydantic import ValidationError

    for name in _left_to_others(settings):
        raise ConfigError(
            f'{name} is "auto", which only the Hugging Face Trainer fills in: give a value or leave it out'
        )
    for name, reason in IGNORED.items():
        section = settings.get(name)
        if isinstance(section, Mapping) and section.get("enabled", name == "pipeline"):
            raise ConfigError(f"{name} is enabled, which would have no effect, since {reason}: leave it out")
    zero = settings.get("zero_optimization", {})
    for part, least in (("offload_optimizer", 1), ("offload_param", 3)):
        offload = zero.get(part) or {}
        where = offload.get("device", "none")
        if where != "none" and zero.get("stage", 0) < least:
            raise ConfigError(
                f"zero_optimization.{part}.device is {where} with stage {zero.get('stage', 0)}, where it would have no "
                f"effect: use stage {least if least == 3 else '1, 2 or 3'}, or leave it out"
            )
        folder = offload.get("nvme_path")
        if where == "nvme" and not (folder and Path(folder).is_dir()):
            raise ConfigError(f"zero_optimization.{part}.nvme_path is {folder}: device nvme needs a folder that exists")
    tried = copy.deepcopy({name: value for name, value in settings.items() if name not in BATCH_SIZES})
    try:
        DeepSpeedConfig(tried | {"train_micro_batch_size_per_gpu": 1})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"DeepSpeed refuses {name or error.title}: {first['msg']}") from None
    except (DeepSpeedConfigError, AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"DeepSpeed refuses the settings: {' '.join(str(error).split()) or repr(error)}") from None


def _left_to_others(settings: Mapping[str, Any]) -> Iterator[str]:
    """Names of the values "auto" outside of zero_optimization, where DeepSpeed itself has a meaning for it."""
    for name, value in settings.items():
        if value == "auto":
            yield name
        elif isinstance(value, Mapping) and name != "zero_optimization":
            autos = [field for field, inner in value.items() if inner == "auto"]
            yield from (f"{name}.{field}" for field in autos if field != "keep_in_fp32_modules")  # DeepSpeed's default
