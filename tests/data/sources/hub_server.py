"""A small server that speaks what the client libraries ask of the Hugging Face hub for datasets."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_not_to_be_seen"
NUMBERS = count(1)  # of commits


@dataclass
class Dataset:
    """Files by commit and path, and the commits of the branches."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Move ``branch`` to a new commit of ``files``."""
        sha = f"{next(NUMBERS):040x}"  # the clients keep what they know of one
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha


class HubServer(ThreadingHTTPServer):
    """The hub; ``served`` counts the bytes of each file that were sent, ``requests`` the requests for ranges of it.

    Attributes:
        failures: how the next requests for a range fail: a status, or ``cut`` for a connection that breaks off.
        always: how all of them fail.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.datasets: dict[str, Dataset] = {}
        self.served: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.failures: list[int | str] = []
        self.always: int | str | None = None
        self.lock = Lock()
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reset(self) -> None:
        """Forget what was served and how to fail."""
        self.served.clear()
        self.requests.clear()
        self.failures.clear()
        self.always = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are sent one after the other
    server: HubServer

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        for pattern, answer in (
            (r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", self._info),
            (r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", self._tree),
            (r"/api/datasets/([^/]+/[^/]+)/paths-info/([^/]+)", self._paths_info),
            (r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        ):
            if match := re.fullmatch(pattern, path):
                name, revision, *rest = (part if part is None else unquote(part) for part in match.groups())
                dataset = self.server.datasets.get(name or "")
                is_open = dataset and (not dataset.private or self.headers.get("Authorization") == f"Bearer {TOKEN}")
                if dataset is None or not is_open:
                    return self._refuse(404, "RepoNotFound", "Repository not found")
                sha = dataset.branches.get(revision or "main", revision)
                if sha not in dataset.commits:
                    return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return answer(name, sha, dataset.commits[sha], *rest)
        return self._refuse(404, "EntryNotFound", "no such page")

    def _info(self, name: str, sha: str, files: dict[str, bytes]) -> None:
        self._json({"id": name, "sha": sha, "private": False, "siblings": [{"rfilename": path} for path in files]})

    def _tree(self, name: str, sha: str, files: dict[str, bytes], folder: str | None) -> None:
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        prefix = f"{folder}/" if folder else ""
        below = {path: len(content) for path, content in files.items() if path.startswith(prefix)}
        if not below:
            return self._refuse(404, "EntryNotFound", f"{folder} does not exist on {sha}")
        entries: dict[str, dict[str, object]] = {}
        for path, size in below.items():
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                entry = prefix + "/".join(parts[:depth])
                entries[entry] = {"type": "directory", "path": entry, "oid": "0", "size": 0}
            if recursive or len(parts) == 1:
                entries[path] = {"type": "file", "path": path, "oid": "1", "size": size}
        self._json(list(entries.values()))

    def _paths_info(self, name: str, sha: str, files: dict[str, bytes]) -> None:
        paths = parse_qs(self._body)["paths"]
        self._json([{"type": "file", "path": p, "oid": "1", "size": len(files[p])} for p in paths if p in files])

    def _resolve(self, name: str, sha: str, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            return self._refuse(404, "EntryNotFound", f"{path} does not exist on {sha}")
        content, status = files[path], 200
        headers = {"ETag": f'"{sha}-{path}"', "X-Repo-Commit": sha}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            failure = self._failure(path)
            if isinstance(failure, int):
                return self._refuse(failure, "", "the server is ill")
            status, size = 206, len(content)
            content = content[int(wanted[1]) : int(wanted[2]) + 1]
            headers["Content-Range"] = f"bytes {wanted[1]}-{wanted[2]}/{size}"
            if failure == "cut":
                self.send_response(206)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
                return None
        if self.command != "HEAD":
            with self.server.lock:
                self.server.served[path] += len(content)
        return self._send(status, content, headers)

    def _failure(self, path: str) -> int | str | None:
        with self.server.lock:
            self.server.requests[path] += 1
            return self.server.failures.pop(0) if self.server.failures else self.server.always

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
