"""A local W&B server for tests, with as much of the GraphQL and file interfaces as W&B's client needs.

The answers have the form of the real ones for wandb 0.31. What the client sends is kept for the tests.
"""

import base64
import gzip
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote

KEY = "0123456789" * 4
ENTITY = "team"
_ENDLESS = 2**26  # bytes after which even an endless file ends


@dataclass
class StoredRun:
    """The uploaded data of one run."""

    name: str
    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"
    starts: int = 0


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Do not print errors of clients that disconnect: tests kill some."""


class WandbServer:
    """Serves until the end of its `with` block, or until :meth:`vanish` is called.

    Attributes:
        runs: by id.
        operations: names of the GraphQL operations, in the order they came.
        views: saved workspaces.
        unreadable: runs whose files are refused.
        endless: runs whose files have no end.
        sent: bytes of them that were sent.
        refuse_keys: whether no API key is good enough.
    """

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: dict[str, str] = {}
        self.operations: list[str] = []
        self.views: list[dict[str, Any]] = []
        self.projects = {"cl-powerprop"}
        self.refuse_keys = False
        self.unreadable: set[str] = set()
        self.endless: set[str] = set()
        self.sent = 0
        self._going_on = threading.Event()
        self._going_on.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _body(self) -> bytes:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

            def _reply(self, body: bytes, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _send_without_end(self) -> None:
                self.close_connection = True
                self.send_response(200)
                self.end_headers()
                while server.sent < _ENDLESS:
                    self.wfile.write(bytes(2**16))
                    server.sent += 2**16

            def do_GET(self) -> None:
                _, kind, run, name = [*unquote(self.path).split("/", 3), "", "", ""][:4]
                stored = server.runs.get(run)
                if run in server.unreadable:
                    self._reply(b"{}", 403)
                elif run in server.endless:
                    self._send_without_end()
                elif kind == "storage" and stored is not None and name in stored.files:
                    self._reply(stored.files[name])
                else:
                    self._reply(b"{}", 404 if kind == "storage" else 200)

            def do_PUT(self) -> None:
                body = self._body()
                _, kind, run, name = [*unquote(self.path).split("/", 3), "", "", ""][:4]
                if kind == "storage":
                    server.runs[run].files[name] = body
                self._reply(b"{}")

            def do_POST(self) -> None:
                body = self._body()
                server._going_on.wait()
                if self.path == "/graphql":
                    if server.refuse_keys:
                        self._reply(b'{"errors": [{"message": "invalid API key"}]}', 401)
                    else:
                        request = json.loads(body)
                        self._reply(
                            json.dumps(server.answer(request["query"], request.get("variables") or {})).encode()
                        )
                elif self.path.endswith("/file_stream"):
                    server.stream(self.path.split("/")[4], json.loads(body))
                    self._reply(b'{"exitcode": null, "limits": {}}')
                else:  # telemetry
                    self._reply(b"{}")

        self._http = _QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.environment = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vanish()

    def wait_for_a_run(self) -> None:
        """Return when a client has started a run, and has had some time to continue."""
        for _ in range(600):
            if self.runs:
                break
            time.sleep(0.05)
        else:
            raise TimeoutError("no run came")
        time.sleep(0.5)

    def stall(self) -> None:
        """Take requests from now on, and answer none."""
        self._going_on.clear()

    def vanish(self) -> None:
        """Stop answering: connections are refused from now on."""
        self._going_on.set()
        self._http.shutdown()
        self._http.server_close()

    def stream(self, run: str, content: dict[str, Any]) -> None:
        """Take a piece of a run's history, summary or end."""
        stored = self.runs[run]
        files = content.get("files") or {}
        for line in files.get("wandb-history.jsonl", {}).get("content", []):
            stored.history.append(json.loads(line))
        for line in files.get("wandb-summary.json", {}).get("content", []):
            stored.summary = json.loads(line)
        if content.get("complete"):
            stored.state = "finished" if content.get("exitcode") == 0 else "failed"

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer one GraphQL request."""
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = found.group(1) if found else ""
        self.operations.append(operation)
        answers = {
            "Viewer": self._viewer,
            "GetDefaultEntity": self._viewer,
            "GetViewer": self._viewer,
            "RunResumeStatus": self._resume_status,
            "UpsertBucket": self._upsert,
            "CreateRunFiles": self._create_files,
            "Runs": self._list,
            "UpsertView2": self._save_view,
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "CreateArtifact": self._create_artifact,
        }
        for name, answer in answers.items():
            if operation == name:
                return {"data": answer(variables)}
        return {"data": {"project": {"artifact": None, "run": self._files(variables)}}}

    def _viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": _id("user"), "entity": ENTITY, "username": "someone", "email": "", "flags": "{}"}
        return {"viewer": viewer | {"teams": {"edges": []}, "name": "", "admin": False}}

    def _resume_status(self, variables: dict[str, Any]) -> dict[str, Any]:
        stored = self.runs.get(variables["name"])
        bucket = stored and {
            "id": _id(stored.name),
            "name": stored.name,
            "summaryMetrics": json.dumps(stored.summary),
            "displayName": stored.fields.get("displayName"),
            "logLineCount": 0,
            "historyLineCount": len(stored.history),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(stored.history[-1])] if stored.history else []),
            "eventsTail": "[]",
            "config": json.dumps(stored.config),
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": {"1": []}}),  # telemetry, which every started run has
        }
        name = variables.get("project")
        return {
            "model": {"id": _id(name), "name": name, "entity": {"id": _id(ENTITY), "name": ENTITY}, "bucket": bucket}
        }

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        name, project = variables["name"], variables.get("project") or "uncategorized"
        inserted = name not in self.runs
        stored = self.runs.setdefault(name, StoredRun(name, project))
        stored.starts += variables.get("displayName") is not None
        stored.fields |= {key: value for key, value in variables.items() if value is not None}
        if variables.get("config"):
            stored.config |= json.loads(variables["config"])
        bucket = {"id": _id(name), "name": name, "displayName": stored.fields.get("displayName") or name}
        bucket |= {"description": "", "config": "{}", "sweepName": None, "historyLineCount": len(stored.history)}
        bucket["project"] = {"id": _id(project), "name": project, "entity": {"id": _id(ENTITY), "name": ENTITY}}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _create_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": self._place(variables["run"], name)} for name in variables["files"]]
        return {"createRunFiles": {"runID": _id(variables["run"]), "uploadHeaders": [], "files": files}}

    def _list(self, variables: dict[str, Any]) -> dict[str, Any]:
        if variables["project"] not in self.projects:
            return {"project": None}
        stored = [run for run in self.runs.values() if run.project == variables["project"]]
        edges = [{"node": self._node(run), "cursor": run.name} for run in stored]
        page = {"endCursor": None, "hasNextPage": False}
        return {
            "project": {
                "internalId": _INTERNAL,
                "runCount": len(stored),
                "readOnly": False,
                "runs": {"edges": edges, "pageInfo": page},
            }
        }

    def _node(self, run: StoredRun) -> dict[str, Any]:
        node = {"id": _id(run.name), "tags": [], "name": run.name, "displayName": run.fields.get("displayName")}
        node |= {"sweepName": None, "state": run.state, "group": run.fields.get("groupName"), "jobType": None}
        node |= {"commit": None, "readOnly": False, "createdAt": "2026-01-01T00:00:00", "heartbeatAt": None}
        node |= {"description": "", "notes": None, "historyLineCount": len(run.history), "projectId": _INTERNAL}
        return node | {"user": {"name": "", "username": "someone"}}

    def _files(self, variables: dict[str, Any]) -> dict[str, Any] | None:
        stored = self.runs.get(variables.get("name") or variables.get("run") or "")
        if stored is None:
            return None
        wanted = variables.get("fileNames") or list(stored.files)
        edges = [
            {
                "cursor": name,
                "node": {
                    "id": _id(name),
                    "name": name,
                    "url": self._place(stored.name, name),
                    "directUrl": self._place(stored.name, name),
                    "sizeBytes": str(len(stored.files[name])),
                    "mimetype": None,
                    "updatedAt": None,
                    "md5": "",
                },
            }
            for name in wanted
            if name in stored.files
        ]
        page = {"endCursor": None, "hasNextPage": False}
        return {"fileCount": len(edges), "files": {"edges": edges, "pageInfo": page}}

    def _create_artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        given = variables["input"]
        self.artifacts[given["artifactCollectionName"]] = given["artifactTypeName"]
        known = {"id": _id(given["digest"]), "state": "COMMITTED"}  # "I have these bytes already"
        return {"createArtifact": {"artifact": {**known, "artifactSequence": {"latestArtifact": {"id": known["id"]}}}}}

    def _save_view(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.views.append(variables)
        return {"upsertView": {"view": {"id": _id("view"), "name": "saved"}, "inserted": True}}

    def _place(self, run: str, name: str) -> str:
        return f"{self.url}/storage/{run}/{name}"


_INTERNAL = "1"


def _id(text: str | None) -> str:
    return base64.b64encode(f"Thing:v1:{text}".encode()).decode()
