"""Versions of the libraries that this package was written against."""

import warnings
from importlib.metadata import version

from packaging.version import Version

from presence_ds.errors import ConfigError

MINIMUM = {"torch": "2.6", "deepspeed": "0.19.5"}
NEWEST_TESTED_DEEPSPEED = "0.20"  # the first release series that nobody has tried


def check_versions() -> None:
    """Raise `ConfigError` if torch or DeepSpeed is too old; warn once if DeepSpeed is newer than any that was tried."""
    for name, minimum in MINIMUM.items():
        found = version(name)
        if Version(found) < Version(minimum):
            raise ConfigError(f"{name} {found} is installed: presence_ds needs {name} >= {minimum}; upgrade it")
    found = version("deepspeed")
    if Version(found) >= Version(NEWEST_TESTED_DEEPSPEED):
        warnings.warn(
            f"presence_ds was tested with deepspeed >= {MINIMUM['deepspeed']}, < {NEWEST_TESTED_DEEPSPEED}; "
            f"{found} is installed",
            stacklevel=3,
        )
