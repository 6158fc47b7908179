"""As much of wandb's server as `wandb sync` and an online run need: it keeps the lines of history that it is sent."""

import gzip
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """Listens on a port of this machine.

    Attributes:
        history: of every run by its id, the lines by their offset, a later one in the place of an earlier one.
        summaries: of every run by its id, the last one sent.
        hangs: whether it keeps everybody waiting.
        projects: names of those there are.
        entity: the key's default.
        views: workspaces and reports by id, and how often one was saved.
        trouble: instead of an answer: "500", or "closes" for a connection that ends; "" for none.
    """

    def __init__(self) -> None:
        self.history: dict[str, dict[int, dict[str, Any]]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.hangs = threading.Event()
        self.trouble = ""
        self.projects = {"p"}
        self.views: dict[str, dict[str, Any]] = {}
        self.saved = 0
        self.entity: str | None = "e"
        keeper = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    content = gzip.decompress(content)
                while keeper.hangs.is_set():
                    threading.Event().wait(0.1)
                if keeper.trouble == "closes":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if keeper.trouble:
                    self.send_error(int(keeper.trouble))
                    return
                if not self.path.endswith(("/graphql", "/file_stream")):  # telemetry
                    self.answer({})
                    return
                request = json.loads(content)
                if self.path.endswith("/file_stream"):
                    keeper.take(self.path.split("/")[-2], request)
                    self.answer({"exitcode": None, "limits": {}})
                else:
                    self.answer({"data": keeper.answer(request)})

            def answer(self, value: dict[str, Any]) -> None:
                text = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, run_id: str, request: dict[str, Any]) -> None:
        chunk = request.get("files", {}).get("wandb-history.jsonl")
        if chunk is not None:
            lines = self.history.setdefault(run_id, {})
            for index, line in enumerate(chunk["content"]):
                lines[chunk["offset"] + index] = json.loads(line)

        summary = request.get("files", {}).get("wandb-summary.json")
        if summary is not None:
            self.summaries[run_id] = json.loads(summary["content"][-1])

    def lines(self, run_id: str) -> list[dict[str, Any]]:
        """The history of a run in order."""
        kept = self.history.get(run_id, {})
        return [kept[offset] for offset in sorted(kept)]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        found = re.match(r"\s*(?:query|mutation)\s+(\w+)", request.get("query", ""))
        name, values = found.group(1) if found else "", request.get("variables") or {}
        if name == "UpsertBucket":
            run_id = values.get("name") or "none"
            bucket = {"id": "1", "name": run_id, "displayName": run_id, "sweepName": None, "historyLineCount": None}
            bucket["project"] = {"id": "2", "name": "p", "entity": {"id": "3", "name": "e"}}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name == "RunResumeStatus":
            lines = self.lines(values["name"])
            if not lines:
                return {"model": None}
            summary = json.dumps(lines[-1])
            return {
                "model": {
                    "id": "2",
                    "name": "p",
                    "entity": {"id": "3", "name": "e"},
                    "bucket": {
                        "id": "1",
                        "name": values["name"],
                        "summaryMetrics": summary,
                        "displayName": values["name"],
                        "logLineCount": 0,
                        "historyLineCount": len(lines),
                        "eventsLineCount": 0,
                        "historyTail": json.dumps([json.dumps(lines[-1])]),
                        "eventsTail": json.dumps([]),
                        "config": "{}",
                        "tags": [],
                        "wandbConfig": json.dumps({"t": 1}),
                    },
                }
            }
        if name in ("upsertView", "UpsertView2"):
            self.saved += 1
            view_id = values.get("id") or f"VmlldzoA{len(self.views)}"
            self.views[view_id] = values | {"id": view_id}
            return {"upsertView": {"view": self.view(view_id), "inserted": True}}
        if name == "ProjectViews":
            known = values["project"] in self.projects
            views = [view for view in self.views.values() if view["type"] == values.get("viewType", "runs")]
            edges = [{"node": self.view(view["id"]) | {"user": None}, "cursor": view["id"]} for view in views]
            page = {"endCursor": None, "hasNextPage": False}
            return {"project": {"allViews": {"edges": edges, "pageInfo": page}} if known else None}
        if name in ("projectInternalId", "ProjectInternalId"):
            return {"project": {"internalId": "UHJvamVjdA=="} if values["projectName"] in self.projects else None}
        if name == "View":
            found = [self.view(key) for key, view in self.views.items() if view["name"] == values["viewName"]]
            return {"project": {"allViews": {"edges": [{"node": view} for view in found]}}}
        if name == "CreateRunFiles":
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}}
        if name == "GetProjects":
            more = {"entityName": "e", "createdAt": "2026-01-01", "isBenchmark": False, "user": None}
            nodes = [{"id": project, "name": project} | more for project in self.projects]
            page = {"endCursor": None, "hasNextPage": False}
            return {"models": {"edges": [{"node": node, "cursor": ""} for node in nodes], "pageInfo": page}}
        return {"viewer": {"id": "3", "entity": self.entity, "username": "e", "flags": "{}", "teams": {"edges": []}}}

    def view(self, view_id: str) -> dict[str, Any]:
        """A workspace or a report, as it is asked for."""
        view = self.views[view_id]
        project = {"id": "2", "name": view["projectName"], "entityName": view["entityName"]}
        return {name: view.get(name) for name in ("id", "name", "displayName", "description", "spec")} | {
            "project": project,
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": "2026-01-01T00:00:00",
        }

    def close(self) -> None:
        self._server.shutdown()
