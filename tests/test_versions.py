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


@pytest.mark.parametrize("tested", [("0.1", "0.2"), ("98.0", "99.0")])
def test_a_deepspeed_outside_the_tested_range_warns_with_the_range(
    monkeypatch: pytest.MonkeyPatch, tested: tuple[str, str]
) -> None:
    monkeypatch.setattr(versions, "TESTED_DEEPSPEED", tested)
    expected = rf"tested with deepspeed >= {tested[0]}, < {tested[1]}; .* is installed"
    with pytest.warns(UserWarning, match=expected):
        versions.check_versions()
