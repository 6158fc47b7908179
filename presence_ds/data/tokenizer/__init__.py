"""The tokenizer: loaded or trained, kept beside the corpus, and how many bytes its tokens stand for."""
