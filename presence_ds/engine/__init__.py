"""DeepSpeed ZeRO meets the method."""

from typing import TYPE_CHECKING

from presence_ds.lazy import lazy_names

if TYPE_CHECKING:
    from presence_ds.engine.config import PresenceConfig
    from presence_ds.engine.engine import PresenceEngine
else:
    __getattr__ = lazy_names(__name__, __file__)

__all__ = ["PresenceConfig", "PresenceEngine"]
