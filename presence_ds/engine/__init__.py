"""DeepSpeed ZeRO meets the method."""

from presence_ds.engine.config import PresenceConfig
from presence_ds.engine.engine import PresenceEngine
from presence_ds.engine.initialize import initialize

__all__ = ["PresenceConfig", "PresenceEngine", "initialize"]
