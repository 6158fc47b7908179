"""Pre-training under DeepSpeed with every sample weighted by its self-influence."""

from presence_ds.engine import PresenceConfig, initialize

__all__ = ["PresenceConfig", "initialize"]
__version__ = "0.1.0"
