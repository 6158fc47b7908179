"""What the sections of a recipe that are each about a tracker have in common."""

from importlib.util import find_spec

from presence_ds.errors import ConfigError


def check_installed(package: str, section: str) -> None:
    """Raise `ConfigError` where ``package`` is not installed, which comes with the extra of the section's name."""
    if find_spec(package) is None:
        raise ConfigError(
            f"{section}.enabled is true, and {package} is not installed: pip install presence-ds[{section}]"
        )
