"""Pre-training under DeepSpeed with every sample weighted by its self-influence."""

from typing import TYPE_CHECKING

from presence_ds import errors
from presence_ds.lazy import lazy_names

if TYPE_CHECKING:
    from presence_ds.engine.config import PresenceConfig
    from presence_ds.engine.initialize import initialize
else:
    __getattr__ = lazy_names(__name__, __file__)

__all__ = ["PresenceConfig", "errors", "initialize"]
__version__ = "0.1.0"
