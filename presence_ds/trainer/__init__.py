"""From a recipe to a trained model: the loop, its callbacks, and what a run leaves."""
