"""The corpora that the tests of filtering have."""

from tests.trainer.scores.conftest import corpora, documents  # noqa: F401
