"""Numbers that a setting may have: refused out of their range wherever they come from, in one line."""

from dataclasses import dataclass, field
from math import inf, nan
from typing import Any, Literal

import numpy as np
import pytest

from presence_ds.errors import ConfigError
from presence_ds.sections import check_ranges, limited


@dataclass
class Inner:
    share: float | None = limited(None, above=0, most=1)


@dataclass
class Outer:
    steps: int = limited(3, least=1)
    size: float = limited(1.0, above=0)
    limit: float | None = limited(None, above=0, most=inf)
    mode: Literal["auto"] | float = limited("auto", least=2, below=3)
    inner: Inner = field(default_factory=Inner)
    inners: list[Inner] = field(default_factory=list)
    free: float = 0.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "s.steps is 0: it must be at least 1"),
        ({"size": 0.0}, "s.size is 0.0: it must be above 0"),
        ({"size": np.float32(-1)}, "s.size is -1.0: it must be above 0"),
        ({"size": inf}, "s.size is inf: it must be above 0 and finite"),
        ({"size": nan}, "s.size is nan: it must be above 0 and finite"),
        ({"limit": nan}, "s.limit is nan: it must be above 0 and finite, or null"),
        ({"mode": 3}, "s.mode is 3: it must be at least 2 and below 3"),
        ({"steps": "3"}, "s.steps is '3': it must be a number"),
        ({"size": None}, "s.size is None: it must be a number"),
        ({"limit": [1]}, "s.limit is [1]: it must be a number, or null"),
        ({"mode": "any"}, "s.mode is 'any': it must be a number"),
        ({"inner": Inner(1.5)}, "s.inner.share is 1.5: it must be above 0 and at most 1, or null"),
        ({"inners": [Inner(), Inner(0.0)]}, "s.inners[1].share is 0.0: it must be above 0 and at most 1, or null"),
    ],
)
def test_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_ranges(Outer(**fields), "s")
    assert str(refused.value) == message


def test_in_range() -> None:
    check_ranges(Outer())
    check_ranges(Outer(1, 1e-300, inf, 2, Inner(1.0), [Inner(), Inner(0.5)], nan))
    check_ranges(Outer(mode="auto", limit=None))
    assert (Outer.steps, Outer().steps) == (3, 3)
