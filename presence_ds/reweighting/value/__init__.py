"""What weights are worth: the gradient noise scale, the gain of weightings, and the verdict on every source."""
