"""A small HTTP server for one person at one machine: standard library, loopback unless told otherwise.

Who has the address with its token gets a cookie; nobody else gets anything. The Host header must be a name of this
machine, so that no page from elsewhere can reach it by rebinding its own name. No request carries a path of a file:
rows go by their ids, images are encoded anew, and static files are a few names in a table.
"""

import hmac
import ipaddress
import json
import secrets
import tempfile
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

from capfilt.errors import CapfiltError, ConfigError, DataError, StorageError
from capfilt.report.clean import page
from capfilt.serve.review.desk import Desk, asked_of

LARGEST_BODY = 1 << 16
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Refused(Exception):
    """A request that gets no answer but this."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Server(ThreadingHTTPServer):
    """Listens as soon as it is made. Raises ConfigError where it cannot."""

    daemon_threads = True

    def __init__(self, desk: Desk, host: str, port: int) -> None:
        self.desk, self.token, self.host = desk, secrets.token_urlsafe(24), host
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error}. Give another --port (0: any free one)"
            ) from None
        self.cookie = f"capfilt-review-{self.server_port}"  # cookies do not tell ports apart
        self.files = _static_files()

    @property
    def url(self) -> str:
        """Where the page is, with what opens it."""
        return f"http://{self.host}:{self.server_port}/?token={self.token}"

    def is_own(self, host: str) -> bool:
        """Whether a Host header names this machine: a number, `localhost`, or the name that it was given."""
        name, _, port = host.rpartition(":")
        if port != str(self.server_port):
            return False
        if name in ("localhost", self.host):
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is no news."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "capfilt", ""
    timeout = 60

    def do_GET(self) -> None:
        """Pages, rows and images."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """What a person says."""
        self._guarded(self._post)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line would hold the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses by itself, as any other answer."""
        self.close_connection = True
        self._answer(HTTPStatus(code), *_json({"error": message or HTTPStatus(code).phrase}))

    def _guarded(self, work: Callable[[urllib.parse.SplitResult, dict[str, str]], None]) -> None:
        try:
            if not self.server.is_own(self.headers.get("Host", "")):
                raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host you are looking for")
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True, max_num_fields=32))
            if work == self._get and url.path == "/" and "token" in query:
                self._let_in(query["token"])
                return
            if not self._is_known():
                raise Refused(HTTPStatus.FORBIDDEN, "open the address that capfilt review printed, token and all")
            work(url, query)
        except Refused as refused:
            self._refuse(refused.status, str(refused))
        except DataError as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error))
        except StorageError as error:
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
        except (CapfiltError, ValueError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        if self.command == "POST":
            self.close_connection = True  # its body may still be unread
        self._answer(status, *_json({"error": message}))

    def _let_in(self, token: str) -> None:
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "this token is of another run of capfilt review")
        cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
        self._answer(HTTPStatus.SEE_OTHER, b"", "text/plain", {"Set-Cookie": cookie, "Location": "/"})

    def _is_known(self) -> bool:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self.server.token.encode())

    def _get(self, url: urllib.parse.SplitResult, query: dict[str, str]) -> None:
        desk = self.server.desk
        if url.path in self.server.files:
            self._answer(HTTPStatus.OK, *self.server.files[url.path])
        elif url.path == "/api/about":
            self._answer(HTTPStatus.OK, *_json(desk.about()))
        elif url.path == "/api/rows":
            version = int(query["version"]) if "version" in query else None
            asked = asked_of(query), int(query.get("offset", 0)), int(query.get("many", 20)), version
            self._answer(HTTPStatus.OK, *_json(desk.page(*asked)))
        elif url.path.startswith("/image/"):
            data = desk.image(url.path.removeprefix("/image/"), "large" in query)
            self._answer(HTTPStatus.OK, data, "image/jpeg", {"Cache-Control": "private, max-age=3600"})
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page")

    def _post(self, url: urllib.parse.SplitResult, query: dict[str, str]) -> None:
        said = self._body()
        if url.path == "/api/review":
            verdict = _text(said, "id"), _text(said, "verdict"), _may(said, "which"), _may(said, "text")
            answer = self.server.desk.review(*verdict)
        elif url.path == "/api/undo":
            answer = self.server.desk.undo()
        elif url.path == "/api/replace":
            asked = said.get("asked")
            if not isinstance(asked, dict):
                raise Refused(HTTPStatus.BAD_REQUEST, "asked: which rows are meant?")
            words = _text(said, "find"), _text(said, "put"), _text(said, "which")
            flags = said.get("case") is True, said.get("apply") is True
            answer = self.server.desk.replace(asked_of(asked), *words, *flags)
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        self._answer(HTTPStatus.OK, *_json(answer))

    def _body(self) -> dict[str, Any]:
        """A JSON object, sent by a page of our own."""
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{self.headers['Host']}":
            raise Refused(HTTPStatus.FORBIDDEN, "another site may not say anything here")
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "only JSON is taken")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if int(length) > LARGEST_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{length} bytes; at most {LARGEST_BODY}")
        found = json.loads(self.rfile.read(int(length)))
        if not isinstance(found, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "a JSON object is wanted")
        return found

    def _answer(self, status: HTTPStatus, data: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": "no-store"}
        for name, value in (HEADERS | headers | (more or {})).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def reviewing(out: Path, host: str = "127.0.0.1", port: int = 8765) -> Iterator[Server]:
    """A server on the run in `out`; `serve_forever` answers. Raises DataError, ConfigError."""
    if host not in ("127.0.0.1", "localhost"):
        warnings.warn(f"{host} can be reached by others: who has the address with its token can review", stacklevel=2)
    with (
        tempfile.TemporaryDirectory(prefix="capfilt-review-") as folder,
        Desk(out, Path(folder)) as desk,
        Server(desk, host, port) as server,
    ):
        yield server


def _static_files() -> dict[str, tuple[bytes, str]]:
    """Path → (bytes, content type) of all that the page is made of."""
    web = resources.files("capfilt.serve.review").joinpath("web")
    texts = {
        "/": (web.joinpath("index.html").read_text("utf-8"), "text/html"),
        "/review.css": (page.styles() + web.joinpath("review.css").read_text("utf-8"), "text/css"),
        "/review.js": (web.joinpath("review.js").read_text("utf-8"), "text/javascript"),
        "/icon.svg": (web.joinpath("icon.svg").read_text("utf-8"), "image/svg+xml"),
        "/bars.js": (page.static(page.SCRIPT), "text/javascript"),
    }
    return {path: (text.encode(), f"{kind}; charset=utf-8") for path, (text, kind) in texts.items()}


def _json(value: Any) -> tuple[bytes, str]:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"), "application/json"


def _may(said: dict[str, Any], name: str) -> str | None:
    value = said.get(name)
    if value is not None and not isinstance(value, str):
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is no string")
    return value


def _text(said: dict[str, Any], name: str) -> str:
    value = _may(said, name)
    if value is None:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is missing")
    return value
