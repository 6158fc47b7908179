"""The workspace and the report, as wandb-workspaces itself reads them, and as they are sent."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from presence_ds import cli
from presence_ds.trainer.callbacks.worth_report import WORDS
from presence_ds.trainer.trackers.dashboard import specifications
from presence_ds.trainer.trackers.panels import PANELS
from presence_ds.trainer.trackers.sections import (
    NAMES,
    RELATIVE_WEIGHT,
    SAMPLE_LOSS,
    SAMPLES,
    SELF_INFLUENCE,
    sectioned,
)
from tests.trainer.trackers.conftest import Tracked, forget_wandb
from tests.trainer.trackers.wandb_server import Server


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "WANDB_ENTITY", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")  # so that it is as it was when it has been set since
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    forget_wandb()


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["dashboard", *arguments])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("presence: error: ")
    return line


def test_every_plot_shows_what_there_is(tracked: Tracked) -> None:
    """Names are those of figures, patterns find some in a run, and what they find has nothing else in it."""
    gains = {f"gain/{name}{end}" for name in WORDS if name != "uniform" for end in ("", "_error", "_speedup")}
    of_run = gains | {name for line in tracked.metrics for name in sectioned(line)}
    known = set(NAMES.values()) | of_run | {SAMPLE_LOSS, RELATIVE_WEIGHT, SELF_INFLUENCE}
    for section in PANELS:
        for plot in section.plots:
            assert set(plot.y) <= known, plot.title
            assert plot.y or plot.pattern
            assert plot.x in NAMES.values()
            if plot.pattern is not None:
                found = {name for name in of_run if re.search(plot.pattern, name)}
                assert found, plot.title
                figures = {name.rsplit("/", 1)[1] for name in found}
                assert len(figures) == 1 or figures == WORDS.keys() - {"uniform"}, plot.title


def test_the_file_is_what_wandb_workspaces_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from wandb_workspaces.reports.v2 import PanelGrid, Report
    from wandb_workspaces.reports.v2 import internal as of_reports
    from wandb_workspaces.workspaces import Workspace
    from wandb_workspaces.workspaces import internal as of_workspaces

    path = tmp_path / "dashboard.json"
    cli.main(["dashboard", "--project", "p", "--entity", "e", "--file", str(path)])
    assert capsys.readouterr().out == f"{path}\n"
    found = json.loads(path.read_text())
    view = of_workspaces.View.model_validate(found["workspace"])
    workspace = Workspace._from_model(view)
    assert [section.name for section in workspace.sections] == [*(section.name for section in PANELS), "Samples"]
    titles = [panel.title for panel in workspace.sections[0].panels]
    assert titles == [plot.title for plot in PANELS[0].plots]
    assert (workspace.entity, workspace.project) == ("e", "p")
    first = workspace.sections[0].panels[0]
    assert (first.groupby_aggfunc, first.groupby_rangefunc) == ("mean", "stddev")

    report = Report._from_model(of_reports.ReportViewspec.model_validate(found["report"]))
    grids = [block for block in report.blocks if isinstance(block, PanelGrid)]
    assert len(grids) == len(PANELS) + 2
    assert [runset.name for runset in grids[0].runsets] == ["with PRESENCE", "without"]
    assert [runset.filters for runset in grids[0].runsets] == [
        "Config(\"weights.value\") != 'uniform'",
        "Config(\"weights.value\") == 'uniform'",
    ]
    keys = {(key["section"], key["name"]) for key in keys_of(found["report"])}
    assert keys == {("config", "weights.value")}  # groups and filters look at one place
    assert SAMPLES in path.read_text()
    for grid in grids:  # no two panels in one place
        places = [(panel.layout.x, panel.layout.y) for panel in grid.panels]
        assert len(set(places)) == len(places)


def keys_of(found: Any) -> Iterator[dict[str, str]]:
    """Those that runs are grouped and filtered by."""
    if isinstance(found, list):
        for one in found:
            yield from keys_of(one)
    elif isinstance(found, dict):
        yield from found.get("grouping", [])
        if found.get("op") in ("=", "!="):
            yield found["key"]
        for one in found.values():
            yield from keys_of(one)


def test_the_file_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert specifications("", "p").keys() == {"workspace", "report"}


def test_what_is_saved_again_takes_the_place_of_what_was(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for _ in range(2):
        cli.main(["dashboard", "--project", "p", "--save"])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0].splitlines()[0].startswith("workspace: http")
    kinds = [(view["type"], view["displayName"]) for view in server.views.values()]
    assert sorted(kinds) == [("project-view", "PRESENCE"), ("runs", "PRESENCE")]
    assert server.saved == 4
    for view in server.views.values():
        assert "validation/loss" in view["spec"]


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give one of --save" in fails(capsys)
    assert "give one of --save" in fails(capsys, "--save", "--file", "x.json")
    assert "project is 'a/b'" in fails(capsys, "--project", "a/b", "--file", "x.json")
    assert "project is ''" in fails(capsys, "--project", "", "--file", "x.json")
    assert "file is " in fails(capsys, "--file", str(tmp_path / "nowhere" / "x.json"))


def test_without_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert "wandb has no key: run `wandb login`" in fails(capsys, "--save")


def test_without_a_network(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer" in fails(capsys, "--save")


@pytest.mark.parametrize(
    ("name", "value"), [("WANDB_API_KEY", "abc"), ("WANDB_BASE_URL", "foo")], ids=["key", "address"]
)
def test_a_key_or_an_address_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv(name, value)
    assert "wandb cannot be set up: " in fails(capsys, "--save")


def test_an_answer_that_is_no_http(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As of a proxy."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"no HTTP\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert " does not answer" in fails(capsys, "--save")


def test_a_key_without_a_default_entity(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.entity = None
    assert "give --entity" in fails(capsys, "--project", "p", "--save")


def test_a_server_that_refuses(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.projects.clear()
    assert f"{server.url} does not take the dashboard: " in fails(capsys, "--project", "p", "--entity", "e", "--save")
