"""Pages that are served while a run goes on."""

import socket
import struct
from collections.abc import Callable
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from presence_ds.trainer.report.page import serve
from presence_ds.trainer.report.page.page import render
from presence_ds.trainer.report.page.serve import Server
from tests.trainer.report.page.conftest import Opened
from tests.trainer.report.page.reports import make_report


def test_only_who_knows_the_address_is_answered() -> None:
    with Server(0) as server:
        server.publish("<p>ä</p>", "17")
        with urlopen(server.address) as answer:
            assert answer.read().decode() == "<p>ä</p>"
            assert answer.headers["Cache-Control"] == "no-store"
        with urlopen(f"{server.address}version") as answer:
            assert answer.read() == b"17"
        root = server.address.rsplit("/", 2)[0]
        for path in ("/", "/version", f"{server.address.removeprefix(root)}../", "/etc/passwd"):
            with pytest.raises(HTTPError, match="404"):
                urlopen(root + path)


def test_it_listens_on_localhost_only() -> None:
    with Server(0) as server:
        port = int(server.address.split(":")[2].split("/")[0])
        assert server.address.startswith("http://127.0.0.1:")
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))  # which it would hold too if it listened everywhere
        with pytest.raises(OSError, match="in use"):
            Server(port)


def test_who_goes_away_or_is_silent_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "SILENCE", 0.1)
    with Server(0) as server:
        server.publish("<p>", "1")
        address = ("127.0.0.1", int(server.address.split(":")[2].split("/")[0]))
        with socket.create_connection(address) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # so that it ends by a reset
        with socket.create_connection(address, timeout=10) as silent:
            assert silent.recv(1) == b""  # closed by the server
        with urlopen(server.address) as answer:
            assert answer.read() == b"<p>"
    assert capfd.readouterr().err == ""


def test_an_open_page_loads_itself_anew_where_it_stands(visit: Callable[..., Opened]) -> None:
    report = make_report(seeds=1)
    with Server(0) as server:
        server.publish(render(report, "1"), "1")
        opened = visit(server.address)
        opened.page.get_by_role("button", name="Tokens").click()
        opened.page.locator('[data-step="0-1000"]').click()
        server.publish(render(report, "2"), "2")
        opened.page.wait_for_selector('html[data-version="2"][data-drawn]', timeout=30_000)
        assert opened.page.locator('[data-axis="tokens"]').get_attribute("aria-pressed") == "true"
        assert opened.page.locator("#step-0-1000").is_visible()
        opened.page.select_option("#run", "1")
        opened.page.locator('[data-step="1-700"]').click()
        opened.page.select_option("#run", "0")
        server.publish(render(report, "3"), "3")
        opened.page.wait_for_selector('html[data-version="3"][data-drawn]', timeout=30_000)
        assert opened.page.input_value("#run") == "0"
        assert opened.page.locator(".of-run[data-run='0'] .step:visible").count() == 1
        opened.check()
