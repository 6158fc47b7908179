import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_ds.data.sources.noise import KINDS, NoiseConfig, is_copied, shuffle_words, total_share


@given(text=st.text(), seed=st.integers(0, 3))
def test_shuffling_keeps_words_and_white_space(text: str, seed: int) -> None:
    shuffled = shuffle_words(text, seed, "id")
    assert sorted(shuffled.split()) == sorted(text.split())
    assert re.findall(r"\s+", shuffled) == re.findall(r"\s+", text)
    assert shuffled == shuffle_words(text, seed, "id")


def test_order_depends_on_seed_and_document() -> None:
    text = " ".join(map(str, range(50)))
    assert len({text, shuffle_words(text, 0, "a"), shuffle_words(text, 1, "a"), shuffle_words(text, 0, "b")}) == 4


def test_shuffled_copies_are_the_same_in_every_version() -> None:
    """Runs go on from checkpoints that were written when this was the only kind."""
    text = "the quick brown\nfox  jumps over the lazy dog"
    assert shuffle_words(text, 3, "doc-7") == "jumps over brown\nthe  quick dog fox lazy the"
    noise = NoiseConfig(share=0.2)
    copied = [number for number in range(40) if is_copied(noise, total_share([noise]), 3, f"doc-{number}")]
    assert copied == [5, 14, 19, 25, 26, 37, 39]


@pytest.mark.parametrize("shares", [(0.05,), (0.2,), (0.5,), (0.1, 0.25, 0.15)])
def test_shares_are_of_the_documents_after_adding(shares: tuple[float, ...]) -> None:
    """Documents of each kind are chosen for themselves: two kinds have in common what chance gives them."""
    noises = [NoiseConfig(kind, share) for kind, share in zip(KINDS, shares, strict=False)]
    total = total_share(noises)
    copied = [{n for n in range(20_000) if is_copied(noise, total, 0, f"doc-{n}")} for noise in noises]
    documents = 20_000 + sum(map(len, copied))
    assert [len(found) / documents for found in copied] == pytest.approx(shares, abs=0.01)
    if len(shares) > 1:
        assert len(copied[0] & copied[1]) / 20_000 == pytest.approx(0.2 * 0.5, abs=0.01)
