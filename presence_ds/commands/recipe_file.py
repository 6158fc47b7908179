"""A recipe's YAML, looked at before jsonargparse parses it."""

from collections.abc import Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import yaml

from presence_ds.errors import ConfigError
from presence_ds.sections import check_shape

MAX_DEPTH, MAX_VALUES = 50, 100_000  # far beyond any recipe; values are those of one depth


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where YAML would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{name} stands twice in a section (line {node.start_mark.line + 1}): give it once")
        return super().construct_mapping(node, deep)


def check_recipe_file(path: Path, kind: type) -> None:
    """Raise `ConfigError` unless ``path`` is a YAML file with values of the shape of the dataclass ``kind``."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except ConfigError as error:
        raise ConfigError(f"recipe {path}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" (line {error.problem_mark.line + 1})"
        raise ConfigError(f"recipe {path} is not YAML: {error.problem}{line}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"recipe {path} cannot be read as YAML: {error}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"recipe {path} holds no sections: it must begin with one, such as data:")
    _check_size(values, path)
    check_shape(values, kind)


def _check_size(values: Any, path: Path) -> None:
    """Raise `ConfigError` for what anchors have tied in a knot or blown up, with which jsonargparse would not end."""
    depth, level = 0, [values]
    while level:
        depth += 1
        if depth > MAX_DEPTH or len(level) > MAX_VALUES:
            raise ConfigError(
                f"recipe {path} is nested more than {MAX_DEPTH} deep or holds more than {MAX_VALUES} values"
            )
        nested = (
            value.values() if isinstance(value, Mapping) else value
            for value in level
            if isinstance(value, Mapping | list)
        )
        level = list(islice(chain.from_iterable(nested), MAX_VALUES + 1))
