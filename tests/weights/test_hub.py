"""The hub, played by a server of our own in another process: what is fetched, from where, and every way to fail."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from capfilt.weights.hub import looks_like_id

ROOT = Path(__file__).resolve().parents[2]
COMMIT, OLD = "c" * 40, "0" * 40
SAFE = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": b"weights", "pytorch_model.bin": b"code"}
REPOS = {
    "owner/safe": SAFE | {"tf_model.h5": b"x" * 9, "README.md": b"read me"},
    "owner/old": {"config.json": b"{}", "vocab.txt": b"[PAD]\n", "pytorch_model.bin": b"weights"},
    "bert-base-uncased": {"vocab.txt": b"[PAD]\n", "tokenizer.json": b"{}", "model.safetensors": b"weights"},
}
REVISIONS = {"main": COMMIT, "v1": OLD, COMMIT: COMMIT, OLD: OLD}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as a download asks for."""

    fetched: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/")
        if path.startswith("api/models/"):
            repo, _, rest = path.removeprefix("api/models/").partition("/revision/")
            repo, tree, rest = (repo, "", rest) if rest else repo.partition("/tree/")
            return self.about(repo, rest, bool(tree))
        repo, _, rest = path.partition("/resolve/")
        commit, _, name = rest.partition("/")
        body = REPOS.get(repo, {}).get(name)
        if body is None:
            return self.answer(404, b"", **{"X-Error-Code": "EntryNotFound"})
        if self.command == "GET":
            self.server.fetched.append(name)  # type: ignore[attr-defined]
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        return self.answer(200, body, **{"ETag": etag, "X-Repo-Commit": REVISIONS[commit]})

    def about(self, repo: str, revision: str, tree: bool) -> None:
        if repo not in REPOS:
            return self.answer(404, b"", **{"X-Error-Code": "RepoNotFound"})
        if revision not in REVISIONS:
            return self.answer(404, b"", **{"X-Error-Code": "RevisionNotFound"})
        files = REPOS[repo]
        listed = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in files.items()]
        info = {"id": repo, "sha": REVISIONS[revision], "siblings": [{"rfilename": name} for name in files]}
        return self.answer(200, json.dumps(listed if tree else info).encode(), **{"Content-Type": "application/json"})

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    httpd.fetched = []  # type: ignore[attr-defined]
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.shutdown()


def ask(what: str, home: Path, port: int, **environment: str) -> str:
    """What the call gives in a fresh process: a path, or the error's one line."""
    code = f"""
from capfilt.errors import CapfiltError
from capfilt.weights import hub
try:
    print(hub.{what})
except CapfiltError as error:
    print("error:", error)
"""
    names = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_DISABLE_XET", "PYTHONPATH", "NO_PROXY", "HF_HUB_ETAG_TIMEOUT")
    values = (f"http://127.0.0.1:{port}", str(home), "1", str(ROOT / "src"), "127.0.0.1", "2")
    outer = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**outer, **dict(zip(names, values, strict=True)), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, done.stdout
    return done.stdout.strip()


def test_only_what_is_needed_is_fetched_and_then_kept(server, tmp_path):
    port = server.server_address[1]
    folder = Path(ask("model('owner/safe')", tmp_path, port))
    assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert folder.name == COMMIT and (folder / "model.safetensors").read_bytes() == b"weights"
    assert sorted(server.fetched) == ["config.json", "model.safetensors", "tokenizer.json"]
    server.fetched.clear()
    assert Path(ask("model('owner/safe', offline=True)", tmp_path, 1)) == folder
    assert Path(ask("model('owner/safe')", tmp_path, 1, HF_HUB_OFFLINE="1")) == folder
    assert ask("cached('owner/safe'), hub.cached('owner/old')", tmp_path, 1) == "True False"
    assert not server.fetched


def test_pickled_weights_where_there_is_nothing_better(server, tmp_path):
    folder = Path(ask("model('owner/old', 'v1')", tmp_path, server.server_address[1]))
    assert {path.name for path in folder.iterdir()} == {"config.json", "vocab.txt", "pytorch_model.bin"}
    assert folder.name == OLD


def test_a_vocabulary_alone(server, tmp_path):
    folder = Path(ask("vocabulary()", tmp_path, server.server_address[1]))
    assert {path.name for path in folder.iterdir()} == {"vocab.txt", "tokenizer.json"}


def test_every_way_to_fail_is_one_line(server, tmp_path):
    port = server.server_address[1]
    assert "no such model on the hub" in ask("model('owner/nosuch')", tmp_path, port)
    assert "it has no revision 'v9'" in ask("model('owner/safe', 'v9')", tmp_path, port)
    assert "in the local cache, and offline" in ask("model('owner/safe', offline=True)", tmp_path, port)
    assert "in the local cache, and offline" in ask("model('owner/safe')", tmp_path, port, HF_HUB_OFFLINE="1")
    assert "the hub cannot be reached" in ask("model('owner/safe')", tmp_path, 1)
    assert "not a name that the hub knows" in ask("model('a--b/..c')", tmp_path, port)


@pytest.mark.parametrize(
    ("name", "is_id"),
    [("Salesforce/blip-vqa-base", True), ("owner/a.b_c-d", True), ("name", False), ("a/b/c", False), ("a/b c", False)],
)
def test_what_looks_like_an_id(name, is_id):
    assert looks_like_id(name) == is_id
