import pytest

from presence_ds import versions
from presence_ds.errors import ConfigError


def test_what_is_installed_is_accepted() -> None:
    versions.check_versions()


@pytest.mark.parametrize("name", ["torch", "deepspeed"])
def test_an_old_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(versions.MINIMUM, name, "99.0")
    with pytest.raises(ConfigError, match=rf"^{name} .* is installed: presence_ds needs {name} >= 99.0; upgrade it$"):
        versions.check_versions()


def test_a_newer_deepspeed_than_any_tested_warns_with_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "NEWEST_TESTED_DEEPSPEED", "0.1")
    with pytest.warns(UserWarning, match=r"tested with deepspeed >= 0\.19\.5, < 0\.1; .* is installed"):
        versions.check_versions()
