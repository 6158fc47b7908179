import pytest


@pytest.fixture(autouse=True)
def nothing_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad recipe that is not refused fails at once: its training would take minutes."""
    monkeypatch.setattr("presence_ds.launch.launcher.supervise", lambda *_: pytest.fail("the recipe was not refused"))
