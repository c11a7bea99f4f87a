"""A small run under review, its texts hostile, and a server on it."""

import http.client
import json
import runpy
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from capfilt.serve.review.server import Server, reviewing

make_run = runpy.run_path(str(Path(__file__).parents[1] / "clean" / "test_telling.py"))["make_run"]
HOSTILE = (
    "<script>document.title='ran'</script>",
    "<img src=x onerror=\"document.title='ran'\">",
    "</bdi></p><svg onload=\"document.title='ran'\">",
    "\"' autofocus onfocus=\"document.title='ran'\" x='",
    "javascript:document.title='ran'",
    "{{constructor.constructor('document.title=1')()}}",
    "a red boat on the sea",
)


@dataclass
class Client:
    """Talks to the server as a browser that was let in, unless told otherwise."""

    server: Server
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        status, headers, _ = self.ask("GET", f"/?token={self.server.token}")
        assert status == 303 and headers["Location"] == "/"
        self.cookie = headers["Set-Cookie"].partition(";")[0]

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict, bytes]:
        """(status, headers, body). Headers with _ for -; an empty one is not sent."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        sent = {
            "Host": f"127.0.0.1:{self.server.server_port}",
            "Cookie": self.cookie,
            "Content-Type": "application/json",
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {name: value for name, value in sent.items() if value})
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def get(self, path: str) -> Any:
        status, _, data = self.ask("GET", path)
        assert status == 200, data
        return json.loads(data)

    def post(self, path: str, **body: Any) -> Any:
        status, _, data = self.ask("POST", path, json.dumps(body).encode())
        assert status == 200, data
        return json.loads(data)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run1", 100, texts=HOSTILE)


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run1"))


@pytest.fixture
def client(run):
    with reviewing(run, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield Client(server)
        server.shutdown()
        thread.join()
