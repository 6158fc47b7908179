"""What ranks send each other in one optimizer step: as a model, and as counted in real steps."""

from benchmarks.communication.counting import CountCollectives
from benchmarks.communication.model import ScaleSetting, step_traffic
from benchmarks.communication.traffic import Traffic

__all__ = ["CountCollectives", "ScaleSetting", "Traffic", "step_traffic"]
