"""Attributes that an object has for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def attributes_as(owner: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Inside, ``owner`` has ``values`` for instance attributes, which hide a class's, and a module's parameters."""
    own = vars(owner)
    before = {name: own[name] for name in values if name in own}
    own.update(values)
    try:
        yield
    finally:
        own.update(before)  # in one step: other threads may be using them
        for name in values.keys() - before.keys():
            del own[name]
