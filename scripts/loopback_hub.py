"""A hub on loopback: as much of the protocol as huggingface_hub speaks for models, with faults on demand.

    python scripts/loopback_hub.py [--port 8765] [--add OWNER/NAME=FOLDER ...]

It prints the environment with which the hub's clients use it, and then whatever is asked of it, until Ctrl+C; tests use
the class. Repositories are lists of commits in memory, and end with it. Files of more than LFS_BYTES go through the LFS
protocol, as on the hub.
"""

import argparse
import base64
import hashlib
import json
import re
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_loopback"
OWNER = "tester"
LFS_BYTES = 4096


@dataclass
class Repo:
    """Commits as (id, files, message); branches, tags and pull requests by the names of their refs."""

    private: bool = False
    gated: bool = False
    commits: list = field(default_factory=list)
    refs: dict = field(default_factory=dict)
    pulls: int = 0

    def __post_init__(self):
        self.commit("main", {}, "initial commit")

    def commit(self, ref, files, message):
        """Make a commit with these files, which the ref then names; its id."""
        name = hashlib.sha1(f"{id(self)} {len(self.commits)} {message}".encode()).hexdigest()
        self.commits.append((name, dict(files), message))
        self.refs[ref] = name
        return name

    def find(self, revision):
        """Id and files of a branch, tag, pull request or commit; None if there is none."""
        name = self.refs.get(revision, revision)
        return next(((commit, files) for commit, files, _ in self.commits if commit == name), None)


class LoopbackHub(ThreadingHTTPServer):
    """The server; `requests` holds (method, path) of all that was asked."""

    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.repos = {}
        self.objects = {}
        self.requests = []
        self.drops = {}  # file name: bytes after which each of the next connections breaks
        self.on_request = None
        self.down = False
        self.cache = None  # folder of the client that is tested
        # `shutdown` waits for the next poll; by default they are half a second apart.
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, client_address):
        """A test may hang up on a client by an error in `on_request`; any other is a fault of this server."""
        if not isinstance(sys.exception(), ConnectionAbortedError):
            super().handle_error(request, client_address)

    @property
    def url(self):
        """Where it is served."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name, folder, *, private=False, prefix="", ref="main"):
        """A repository, or a commit of one, with the files of a folder."""
        repo = self.repos.setdefault(name, Repo(private))
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        files = {prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        repo.commit(ref, files, "added")
        return repo

    def asked(self, method, part):
        """The paths that were asked for by a method, of those with this part."""
        return [path for kind, path in self.requests if kind == method and part in path]


class Handler(BaseHTTPRequestHandler):
    """The routes, a method each; what they are asked lies in `body`, `query`, `repo`, `files` and `id`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Nothing is logged."""
        pass

    def do_GET(self):
        """Answer a request of any kind."""
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/refs", "list_refs"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/.*)?", "tree"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?", "info"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<branch>[^/]+)", "branch"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/objects/(?P<oid>\w+)", "put_object"),
        ("HEAD|GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def answer(self):
        """Find the route of a request."""
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.read_chunks() if self.headers.get("Transfer-Encoding") else self.rfile.read(length)
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.server.requests.append((self.command, url.path))
        if self.server.on_request:
            self.server.on_request(self.command, url.path)
        if self.server.down:
            return self.send(503, {"error": "down for maintenance"})
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in ("", TOKEN):
            return self.send(401, {"error": "Invalid credentials in Authorization header"})
        self.known = token == TOKEN
        for methods, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, url.path)
            if match and self.command in methods.split("|"):
                if self.command not in ("HEAD", "GET") and not self.known and name != "put_object":
                    return self.send(401, {"error": "Unauthorized"})
                parts = {key: unquote(part) for key, part in match.groupdict().items() if part is not None}
                return self.dispatch(name, parts)
        return self.send(404, {"error": f"no such route {self.command} {url.path}"})

    def dispatch(self, name, parts):
        """Find the repository and the commit of a route, and follow it."""
        if "repo" in parts:
            self.repo = self.server.repos.get(parts.pop("repo"))
            if self.repo is None or (self.repo.private and not self.known):
                return self.send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            if self.repo.gated:
                return self.send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        if "revision" in parts or name == "info":
            self.revision = parts.pop("revision", "main")
            found = self.repo.find(self.revision)
            if found is None:
                return self.send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            self.id, self.files = found
        return getattr(self, name)(**parts)

    def read_chunks(self):
        """The body of a request that comes in chunks."""
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def send(self, status, content=b"", headers=None):
        """Answer with a status, bytes or JSON, and headers."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def whoami(self):
        """Who the token is of."""
        if not self.known:
            return self.send(401, {"error": "Unauthorized"})
        return self.send(200, {"type": "user", "name": OWNER, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self):
        """Make a repository."""
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        there = name in self.server.repos
        self.server.repos.setdefault(
            name, Repo(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        )
        return self.send(409 if there else 200, {"url": f"{self.server.url}/{name}", "name": name, "id": "0"})

    def validate(self):
        """Any model card will do."""
        return self.send(200, {"errors": [], "warnings": []})

    def list_refs(self):
        """Branches and tags."""
        refs = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": i} for n, i in self.repo.refs.items()]
        return self.send(200, {"branches": refs, "tags": [], "converts": []})

    def entry(self, path, data):
        """What the tree says of a file."""
        entry = {"type": "file", "path": path, "oid": git_id(data), "size": len(data)}
        oid = hashlib.sha256(data).hexdigest()
        return {
            **entry,
            **({"lfs": {"oid": oid, "size": len(data), "pointerSize": 1}} if len(data) > LFS_BYTES else {}),
        }

    def tree(self):
        """All files of a commit."""
        return self.send(200, [self.entry(path, data) for path, data in self.files.items()])

    def info(self):
        """What is known of a model."""
        siblings = [{"rfilename": path} for path in self.files]
        return self.send(
            200, {"_id": "0", "id": "x/y", "sha": self.id, "private": self.repo.private, "siblings": siblings}
        )

    def branch(self, branch):
        """Make a branch."""
        there = branch in self.repo.refs
        if not there:
            self.repo.refs[branch] = self.repo.refs["main"]
        return self.send(409 if there else 200, {})

    def preupload(self):
        """Say which files go through LFS."""
        answers = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] > LFS_BYTES else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(self.body)["files"]
        ]
        return self.send(200, {"files": answers, "commitOid": self.id})

    def batch(self):
        """Say where the objects of LFS go."""
        asked = json.loads(self.body)["objects"]
        link = f"{self.server.url}/objects/"
        answers = [{**o, "actions": {"upload": {"href": link + o["oid"], "header": {}}}} for o in asked]
        return self.send(200, {"transfer": "basic", "objects": answers})

    def put_object(self, oid):
        """Take an object of LFS."""
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.objects[oid] = self.body
        return self.send(200)

    def commit(self):
        """Take a commit, or a pull request."""
        files = dict(self.files)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        answer = {}
        ref = self.revision
        if "create_pr" in self.query:
            self.repo.pulls += 1
            ref = f"refs/pr/{self.repo.pulls}"
            answer = {"pullRequestUrl": f"{self.server.url}/x/y/discussions/{self.repo.pulls}"}
        name = self.repo.commit(ref, files, header["summary"])
        return self.send(200, {"commitUrl": f"{self.server.url}/x/y/commit/{name}", "commitOid": name, **answer})

    def resolve(self, path):
        """A file of a commit, from a byte on if that is asked, and as broken as a test wants it."""
        headers = {"X-Repo-Commit": self.id, "Accept-Ranges": "bytes"}
        if path not in self.files:
            return self.send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        data = self.files[path]
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        status = 200
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        left = self.server.drops.get(path.rsplit("/", 1)[-1])
        if self.command == "GET" and left:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data[: left.pop()])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        return self.send(status, data, headers)


def git_id(data):
    """A file's id in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def main():
    """Serve until Ctrl+C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one; default: %(default)s")
    parser.add_argument("--add", metavar="OWNER/NAME=FOLDER", action="append", default=[], help="a model to begin with")
    options = parser.parse_args()
    try:
        server = LoopbackHub(options.port)
    except OSError as error:
        raise SystemExit(f"port {options.port} can't be used ({error.strerror}); give another --port") from None
    for text in options.add:
        name, _, folder = text.partition("=")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or not Path(folder).is_dir():
            raise SystemExit(f"--add is {text!r}; give OWNER/NAME=FOLDER, such as me/faces=runs/faces/pipeline")
        server.add(name, Path(folder))
    server.on_request = lambda method, path: print(f"{method:5} {path}", flush=True)
    print(f"export HF_ENDPOINT={server.url} HF_TOKEN={TOKEN} HF_HUB_DISABLE_XET=1", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.shutdown()


if __name__ == "__main__":
    main()
