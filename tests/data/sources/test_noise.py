import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_ds.data.sources.noise import NoiseConfig, is_copied, shuffle_words


@given(text=st.text(), seed=st.integers(0, 3))
def test_shuffling_keeps_words_and_white_space(text: str, seed: int) -> None:
    shuffled = shuffle_words(text, seed, "id")
    assert sorted(shuffled.split()) == sorted(text.split())
    assert re.findall(r"\s+", shuffled) == re.findall(r"\s+", text)
    assert shuffled == shuffle_words(text, seed, "id")


def test_order_depends_on_seed_and_document() -> None:
    text = " ".join(map(str, range(50)))
    assert len({text, shuffle_words(text, 0, "a"), shuffle_words(text, 1, "a"), shuffle_words(text, 0, "b")}) == 4


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_share_is_of_the_documents_after_adding(share: float) -> None:
    copies = sum(is_copied(NoiseConfig(share=share), 0, f"doc-{number}") for number in range(20_000))
    assert copies / (20_000 + copies) == pytest.approx(share, abs=0.01)
