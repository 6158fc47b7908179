"""Weights that exist: whether they are whole, and all of them the model's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, is_accelerate_available

from presence_ds.errors import ConfigError
from presence_ds.trainer.building.architecture import first_line, model_class
from presence_ds.trainer.building.model_config import ModelConfig

POINTER = b"version https://git-lfs"
FLOATS = ("F64", "F32", "F16", "BF16")
BUFFERS = ("inv_freq", "position_ids", "token_type_ids", "attn.bias", "masked_bias")  # older versions saved these


def check_weights(config: PretrainedConfig, model: ModelConfig) -> None:
    """Raise `ConfigError` if ``model.path`` has not the weights of the model; they are not read but for their headers.

    Without the package accelerate, names and shapes are checked by `load_pretrained` alone.
    """
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        raise ConfigError(
            f"model.path is {model.path}: its weights are quantized, which cannot be trained; name the model as it "
            f"was before"
        )
    folder = Path(model.source)
    if folder.is_dir():
        _check_files(folder, f"model.path is {model.path}")
    if is_accelerate_available():
        load_pretrained(config, model, device_map="meta", dtype="auto")


def load_pretrained(config: PretrainedConfig, model: ModelConfig, **options: Any) -> Any:
    """The model with the weights at ``model.path``.

    Args:
        options: for `from_pretrained`.

    Raises:
        ConfigError: a file cannot be read, or a weight is missing, has another shape, or is not the model's.
    """
    found = f"model.path is {model.path}"
    try:
        with _quiet():
            built, report = model_class(config).from_pretrained(
                model.source,
                config=config,
                revision=getattr(config, "_commit_hash", None) or "main",  # on the hub: of one commit with it
                use_safetensors=True,
                trust_remote_code=model.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
    except Exception as error:  # of transformers, safetensors and the file system
        raise ConfigError(f"{found}: {first_line(error)}") from None
    _check_report(built, report, model, found)
    return built


def _check_files(folder: Path, found: str) -> None:
    for file in _weight_files(folder, found):
        if not file.is_file():
            raise ConfigError(f"{found}: {file.name}, which {SAFE_WEIGHTS_INDEX_NAME} names, is missing")
        with open(file, "rb") as opened:
            if opened.read(len(POINTER)) == POINTER:
                raise ConfigError(f"{found}: {file.name} is a pointer of git-lfs, not the weights: run git lfs pull")
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118, it is no mapping
                    kind = tensors.get_slice(name).get_dtype()
                    if kind not in FLOATS and not name.endswith(BUFFERS):
                        raise ConfigError(
                            f"{found}: {name} in {file.name} is {kind}: weights must be one of {', '.join(FLOATS)}"
                        )
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{found}: {file.name} is damaged or cut short ({first_line(error)})") from None


def _weight_files(folder: Path, found: str) -> list[Path]:
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return [folder / SAFE_WEIGHTS_NAME]
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        try:
            return [
                folder / name
                for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{found}: {index.name} is damaged") from None
    pickles = sorted(file.name for ending in ("bin", "pt", "pth", "ckpt") for file in folder.glob(f"*.{ending}"))
    state = f"its weights are a pickle ({pickles[0]}): save them" if pickles else "it holds no weights: they must be"
    raise ConfigError(f"{found}: {state} as safetensors, or set from_scratch")


def _check_report(built: Any, report: dict[str, Any], model: ModelConfig, found: str) -> None:
    """Raise `ConfigError` for the first difference between weights and model that ``model`` does not allow."""

    def refused(names: Any) -> list[str]:
        allowed = [name for name in names if any(fnmatch(name, pattern) for pattern in model.differing_weights)]
        return sorted(name for name in set(names) - set(allowed) if not name.endswith(BUFFERS))

    masks = {name for name, buffer in built.named_buffers() if not buffer.is_floating_point()}
    missing = set(refused(report["missing_keys"])) - masks
    unexpected = refused(report["unexpected_keys"])
    if missing:
        first = next(name for name in [*built.state_dict(), *sorted(missing)] if name in missing)
        other = next((name for name in unexpected if _is_wrapped(name, first)), None)
        if other is not None:
            raise ConfigError(f"{found}: its weights call {first} {other}: save them under the model's names")
        raise ConfigError(
            f"{found}: its weights have no {first}{_more(missing)}: name another, or let model.differing_weights "
            f"name what is to be drawn at random"
        )
    if report["mismatched_keys"]:
        name, theirs, ours = sorted(report["mismatched_keys"])[0]
        raise ConfigError(
            f"{found}: its {name} has shape {list(theirs)}, and by its config.json it must be {list(ours)}"
        )
    if unexpected:
        raise ConfigError(
            f"{found}: its {unexpected[0]}{_more(unexpected)} is no weight of {type(built).__name__}: name another, or "
            f"let model.differing_weights name what is to be left out"
        )


def _is_wrapped(name: str, wanted: str) -> bool:
    """Whether ``name`` is ``wanted``, of the whole model or of the one without a head, in a module around it."""
    _, _, inner = name.partition(".")
    return name.endswith(wanted) or ("." in inner and wanted.endswith(f".{inner}"))


def _more(names: Any) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, transformers tells no progress, and does not show the differences that are looked at here."""
    verbosity, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
