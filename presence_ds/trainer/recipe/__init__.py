"""What a run is made of: the recipe, the plan that follows from it, and the part of DeepSpeed."""
