"""``presence estimate``: what a recipe needs, without a GPU and without a model's weights in memory."""
