"""From documents of tokens to samples: what a model is trained to predict, and how documents share a row."""
