"""What weights and sources of a past run were worth, from its score records."""
