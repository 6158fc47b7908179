"""Span corruption, the objective of T5 (Raffel et al. 2020, section 3.1.4): spans of tokens are cut out and predicted.

Every span is replaced by a sentinel in the inputs, and comes after the same sentinel in the targets; both end with EOS:

    tokens    Thank you for inviting me to your party last week .
    inputs    Thank you <extra_id_0> me to your party <extra_id_1> week . </s>
    targets   <extra_id_0> for inviting <extra_id_1> last </s>

The spans are drawn as `random_spans_noise_mask` of the T5 repository does, so that their number and the lengths of
inputs and targets are the same for every sample; a sample begins outside a span and ends in one.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from presence_ds.data.hashing import GAMMA, mix, stable_hash
from presence_ds.data.samples.objective_config import Lengths


class SpanCorruption:
    """Corrupts rows of a fixed length; which spans are cut out depends on nothing but the seed, the part and the draw.

    Args:
        lengths: Of a row, and of what becomes of it.
        sentinel_ids: Tokens of the spans in their order, ``lengths.spans`` of them.
        eos_id: Last token of inputs and targets.
        seed: With ``part``, the name of a part of the corpus: which corruption.
    """

    reads_pieces = False

    def __init__(self, lengths: Lengths, sentinel_ids: list[int], eos_id: int, seed: int, part: str) -> None:
        self.lengths = lengths
        self._sentinel_ids = np.array(sentinel_ids, dtype=np.int64)
        self._eos_id = eos_id
        self._key = np.uint64(stable_hash(seed, "span corruption", part))

    def __call__(self, rows: dict[str, Any], draws: NDArray[np.int64]) -> dict[str, Tensor]:
        """Inputs and targets.

        Args:
            rows: ``input_ids``, int32 [n, ``lengths.row``].
            draws: int64 [n], a number for every row that is another each time it is read.

        Returns:
            ``input_ids`` [n, ``lengths.inputs``] and ``labels`` [n, ``lengths.targets``], int64.
        """
        lengths = self._draw_lengths(draws)
        starts = np.cumsum(lengths, axis=1) - lengths
        is_noise = np.repeat(np.tile([False, True], lengths.size // 2), lengths.ravel()).reshape(len(draws), -1)
        tokens = rows["input_ids"].astype(np.int64)
        return {
            "input_ids": self._replace(tokens, ~is_noise, starts[:, 1::2]),
            "labels": self._replace(tokens, is_noise, starts[:, 0::2]),
        }

    def _draw_lengths(self, draws: NDArray[np.int64]) -> NDArray[np.int64]:
        """Lengths of the stretches of every row, which are by turns outside and inside a span, [n, 2 · spans]."""
        words = self._key + mix(draws.astype(np.uint64) + GAMMA)
        kept, noise = self.lengths.row - self.lengths.noise - 1, self.lengths.noise - 1
        random = mix(words[:, None] + np.arange(1, kept + noise + 1, dtype=np.uint64) * GAMMA)
        lengths = np.empty((len(draws), 2 * self.lengths.spans), dtype=np.int64)
        lengths[:, 0::2] = _segments(random[:, :kept], self.lengths.spans)
        lengths[:, 1::2] = _segments(random[:, kept:], self.lengths.spans)
        return lengths

    def _replace(self, tokens: NDArray[np.int64], kept: NDArray[np.bool_], starts: NDArray[np.int64]) -> Tensor:
        """Tokens where ``kept``, with a sentinel at each of ``starts`` for what is not, and EOS."""
        tokens, kept = tokens.copy(), kept.copy()
        at = np.arange(len(tokens))[:, None], starts
        tokens[at] = self._sentinel_ids
        kept[at] = True
        left = tokens[kept].reshape(len(tokens), -1)
        return torch.from_numpy(np.pad(left, ((0, 0), (0, 1)), constant_values=self._eos_id))


def _segments(random: NDArray[np.uint64], count: int) -> NDArray[np.int64]:
    """Lengths of ``count`` segments, each at least 1, of ``random.shape[1]`` + 1 items; every division as likely."""
    n, cuts = random.shape
    bounds = np.zeros((n, count + 1), dtype=np.int64)
    bounds[:, -1] = cuts + 1
    if count > 1:
        bounds[:, 1:-1] = np.sort(np.argpartition(random, count - 2, axis=1)[:, : count - 1], axis=1) + 1
    return np.diff(bounds, axis=1)
