"""A Hub on the loopback interface: as much of its HTTP protocol as uploads and downloads need.

It keeps everything in memory. The client, unmodified, reaches it through ``HF_ENDPOINT``, Xet off.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pth")  # kept in LFS, as a repository's .gitattributes say
REPO = r"/(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass
class Repo:
    """One repository: its commits with all their files, and its branches."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        parent = self.branches.get(branch, "")
        tree = {**self.commits.get(parent, {}), **files}
        oid = hashlib.sha1(f"{parent}{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[oid] = tree
        self.branches[branch] = oid
        return oid

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


class HubError(Exception):
    """An answer with an error status and the headers that the client tells errors apart by."""

    def __init__(
        self, status: int, code: str = "", message: str = "", commit: str = "", url: str = ""
    ) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        headers["X-Request-Id"] = "Root=1-abc"
        self.status = status
        self.body = json.dumps(
            {"error": message or "refused"} | ({"url": url} if url else {})
        ).encode()
        self.headers = {key: value for key, value in headers.items() if value}


class CutError(Exception):
    """The connection is dropped without an answer."""


class FakeHub:
    """The Hub's state, and what a test may ask of it.

    Attributes:
        tokens: rights by token, ``"write"`` or ``"read"``, in the namespace ``org``.
        requests: method and path of each request so far.
        cut: (method, part of a path, moment): where the connection drops: ``"before"`` the request
            is read whole, in the ``"middle"`` of the answer, or ``"after"`` it was obeyed.
        garbled: path of a file that is served with other content than was sent.
        refusal: status and message of the answer to every commit.
        meanwhile: called once, when an upload begins.
    """

    def __init__(self) -> None:
        self.tokens = {"hf_writer": "write", "hf_reader": "read"}
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}  # by SHA-256
        self.requests: list[tuple[str, str]] = []
        self.cut: tuple[str, str, str] | None = None
        self.garbled: str | None = None
        self.refusal: tuple[int, str] | None = None
        self.meanwhile: Callable[[], object] | None = None
        self._servers = [self._serve(), self._serve()]
        self.url = f"http://127.0.0.1:{self._servers[0].server_port}"
        # Large files lie on a host of another name, where the client takes no token to.
        self.store = f"http://localhost:{self._servers[1].server_port}"

    def _serve(self) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def publish(self, name: str, files: dict[str, bytes], **rights: bool) -> str:
        """Put a repository there without the client; returns the commit."""
        repo = self.repos.setdefault(name, Repo(**rights))
        self.large |= {sha256(data): data for data in files.values()}
        return repo.commit("main", files)

    @contextmanager
    def cutting(self, method: str, part: str, when: str = "before") -> Iterator[None]:
        self.cut = (method, part, when)
        try:
            yield
        finally:
            self.cut = None

    def sent(self, *methods: str) -> list[str]:
        """Paths of the requests with these methods, since the last ``requests.clear()``."""
        return [path for method, path in self.requests if method in methods]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def oid(path: str, data: bytes) -> str:
    """What the Hub calls the content: SHA-256 in LFS, else git's hash of a blob."""
    if path.endswith(LARGE):
        return sha256(data)
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args: Any) -> None:
        pass

    def handle_any(self) -> None:
        self.path = urlsplit(self.path).path
        self.hub.requests.append((self.command, self.path))
        try:
            self._maybe_cut("before")
            body = self._body()
            for method, pattern, action in ROUTES:
                match = re.fullmatch(pattern, self.path)
                if match and self.command in method:
                    action(self, body, **{k: unquote(v) for k, v in match.groupdict().items()})
                    return
            raise HubError(404, message=f"no such page: {self.command} {self.path}")
        except HubError as error:
            self._send(error.status, error.body, error.headers)
        except CutError:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815  (names of the base class)

    def _maybe_cut(self, when: str) -> None:
        method, part, moment = self.hub.cut or ("", "", "")
        if (method, moment) == (self.command, when) and part in self.path:
            if method == "PUT":
                self.rfile.read(4096)  # some of the upload has gone through
            raise CutError

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: len(content) // 2])
        self._maybe_cut("middle")
        self.wfile.write(content[len(content) // 2 :])

    def _json(self, answer: Any) -> None:
        self._maybe_cut("after")
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _rights(self) -> str:
        """'write', 'read', or '' for somebody without a token."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            raise HubError(401, message="Invalid credentials in Authorization header")
        return self.hub.tokens.get(token, "")

    def _repo(self, name: str, write: bool = False) -> Repo:
        rights = self._rights()
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not rights):
            if not rights:  # the Hub does not tell strangers whether there is one
                raise HubError(401, "RepoNotFound", "Repository not found")
            raise HubError(404, "RepoNotFound", "Repository not found")
        if repo.gated and not rights:
            raise HubError(401, "GatedRepo", "Access to this model is restricted.")
        if write and rights != "write":
            raise HubError(403, message="You have no right to write to this repository")
        return repo

    def _commit(self, repo: Repo, revision: str) -> str:
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        if not self._rights():
            raise HubError(401, message="Invalid username or password.")
        if self._rights() != "write" or asked["organization"] != "org":
            raise HubError(403, message="You don't have the rights to create a model there")
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            url = f"{self.hub.url}/{name}"
            raise HubError(409, message="You already created this model repo", url=url)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repos[name] = repo = Repo(private=bool(private))
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def validate_yaml(self, body: bytes) -> None:
        front = json.loads(body)["content"].split("---")
        if len(front) < 3 or "tags:" not in front[1]:
            errors = [{"message": "no tags"}, {"message": "no licence"}]
            self._send(400, json.dumps({"errors": errors, "warnings": []}).encode())
        else:
            self._json({"errors": [], "warnings": []})

    def info(self, body: bytes, repo: str, revision: str = "main") -> None:
        found = self._repo(repo)
        commit = self._commit(found, revision)
        names = [{"rfilename": name} for name in found.commits[commit]]
        about = {"id": repo, "modelId": repo, "private": found.private, "tags": []}
        self._json({**about, "sha": commit, "siblings": names})

    def branch(self, body: bytes, repo: str, name: str) -> None:
        found = self._repo(repo, write=True)
        if name.startswith("refs/"):
            raise HubError(400, message="Invalid reference for a branch")
        if name in found.branches:
            raise HubError(409, message="Reference already exists")
        found.branches[name] = self._commit(found, json.loads(body).get("startingPoint", "main"))
        self._json({})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        found = self._repo(repo, write=True)
        tree = found.commits[self._commit(found, revision)]
        if self.hub.meanwhile:
            self.hub.meanwhile()
            self.hub.meanwhile = None
        answer = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            mode = "lfs" if path.endswith(LARGE) else "regular"
            entry = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            answer.append({**entry, "oid": oid(path, tree[path]) if path in tree else None})
        self._json({"files": answer})

    def batch(self, body: bytes, repo: str) -> None:
        self._repo(repo, write=True)
        answer = []
        for file in json.loads(body)["objects"]:
            entry = {"oid": file["oid"], "size": file["size"]}
            if file["oid"] not in self.hub.large:
                here = f"{self.hub.store}/large/{file['oid']}"
                entry["actions"] = {"upload": {"href": here}, "verify": {"href": here}}
            answer.append(entry)
        self._json({"transfer": "basic", "objects": answer})

    def upload(self, body: bytes, oid: str) -> None:
        if sha256(body) != oid:
            raise HubError(400, message="the content has another hash")
        self.hub.large[oid] = body
        self._json({})

    def verify(self, body: bytes, oid: str) -> None:
        if len(self.hub.large.get(oid, b"")) != json.loads(body)["size"]:
            raise HubError(404, message="the object has another size")
        self._json({})

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        found = self._repo(repo, write=True)
        if self.hub.refusal:
            status, message = self.hub.refusal
            raise HubError(status, message=message)
        files = {}
        for entry in map(json.loads, body.splitlines()):
            value = entry["value"]
            if entry["key"] == "header":
                parent = value.get("parentCommit")
                if parent and parent != self._commit(found, revision):
                    raise HubError(412, message="A commit has happened since")
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif value["oid"] in self.hub.large:
                files[value["path"]] = self.hub.large[value["oid"]]
            else:
                raise HubError(400, message="Your push was rejected: a large file is missing")
        self._commit(found, revision)
        commit = found.commit(revision, files)
        self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit})

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        found = self._repo(repo)
        commit = self._commit(found, revision)
        if path not in found.commits[commit]:
            raise HubError(404, "EntryNotFound", "Entry not found", commit)
        data = found.commits[commit][path]
        if path == self.hub.garbled:
            data = data.upper()
        tag = f'"{oid(path, data)}"'
        headers = {"ETag": tag, "X-Repo-Commit": commit}
        if path.endswith(LARGE):  # the content of large files lies elsewhere
            headers |= {"X-Linked-Etag": tag, "X-Linked-Size": str(len(data))}
            headers["Location"] = f"{self.hub.store}/large/{sha256(data)}"
            self._send(302, b"", headers)
        else:
            self._send(200, data, headers)

    def download(self, body: bytes, oid: str) -> None:
        data = self.hub.large[oid]
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start else 0
        span = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if start else {}
        self._send(206 if start else 200, data[first:], {"ETag": f'"{oid}"', **span})


API = f"/api/models{REPO}"
ROUTES: list[tuple[str, str, Any]] = [
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("GET", API, _Handler.info),
    ("GET", API + r"/revision/(?P<revision>.+)", _Handler.info),
    ("POST", API + r"/branch/(?P<name>.+)", _Handler.branch),
    ("POST", API + r"/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", API + r"/commit/(?P<revision>.+)", _Handler.commit),
    ("POST", REPO + r"\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/large/(?P<oid>\w+)", _Handler.upload),
    ("POST", r"/large/(?P<oid>\w+)", _Handler.verify),
    ("GET HEAD", r"/large/(?P<oid>\w+)", _Handler.download),
    ("GET HEAD", REPO + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]
