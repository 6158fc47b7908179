"""Versions of the libraries that this package was written against."""

import warnings
from importlib.metadata import version

from packaging.version import Version

from presence_ds.errors import ConfigError

MINIMUM = {"torch": "2.6", "deepspeed": "0.19.5"}
TESTED_DEEPSPEED = ("0.19.8", "0.20")  # from, up to and without


def check_versions() -> None:
    """Raise `ConfigError` if torch or DeepSpeed is too old; warn if DeepSpeed is outside the range that is tested.

    0.19.5 works but for its own accumulation of gradients on ZeRO 1 and 2 without contiguous_gradients, which was
    seen to give wrong sums, in plain DeepSpeed too.
    """
    for name, minimum in MINIMUM.items():
        found = version(name)
        if Version(found) < Version(minimum):
            raise ConfigError(f"{name} {found} is installed: presence_ds needs {name} >= {minimum}; upgrade it")
    found, (first, end) = version("deepspeed"), TESTED_DEEPSPEED
    if not Version(first) <= Version(found) < Version(end):
        warnings.warn(f"presence_ds is tested with deepspeed >= {first}, < {end}; {found} is installed", stacklevel=3)
