"""Which calls are given one tensor."""

import torch
from torch import nn

from presence_ds.capture import Capture


def test_terms_of_one_tensor_know_of_each_other() -> None:
    capture = Capture(2, {}, torch.device("cpu"))
    q, k, v, frozen, other, again = (nn.Parameter(torch.zeros(3, 3), requires_grad=index != 3) for index in range(6))
    x = torch.randn(2, 5, 3)
    sharers = capture.share(q, x)
    assert capture.share(frozen, x) is sharers
    assert capture.share(k, x.detach()) is sharers  # as ZeRO-3 gives it to a module
    assert capture.share(v, x.view_as(x)) is sharers
    assert [id(one) for one in sharers] == [id(q), id(k), id(v)]
    assert capture.share(other, x[:, :, :2]) is not sharers
    assert [id(one) for one in capture.share(again, x)] == [id(again)]  # no longer one after the other
    x.add_(1.0)
    assert capture.share(q, x) == [q]


def test_a_tensor_that_is_gone_is_no_other_one() -> None:
    """Memory is used again."""
    capture, weight = Capture(2, {}, torch.device("cpu")), nn.Parameter(torch.zeros(3, 3))
    assert all(len(capture.share(weight, torch.randn(2, 5, 3))) == 1 for _ in range(50))
