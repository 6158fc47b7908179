"""How many processes load the batches of a rank."""

from types import SimpleNamespace

import pytest

from presence_ds.data import DataConfig
from presence_ds.data.streaming.config import StreamingConfig
from presence_ds.trainer import batches


@pytest.mark.parametrize(
    ("device", "stated", "lanes", "processes"),
    [
        ("cpu", None, None, 0),
        ("cuda", None, None, 2),
        ("cuda", None, 16, 2),
        ("cuda", None, 8, 1),  # on 8 ranks
        ("cuda", 0, None, 0),
        ("cpu", 3, 16, 3),
    ],
)
def test_loading_processes(
    monkeypatch: pytest.MonkeyPatch, device: str, stated: int | None, lanes: int | None, processes: int
) -> None:
    monkeypatch.setattr(batches, "get_accelerator", lambda: SimpleNamespace(device_name=lambda: device))
    streaming = None if lanes is None else StreamingConfig(lanes=lanes)
    assert batches.loading_processes(DataConfig(streaming=streaming, num_workers=stated), 8) == processes
