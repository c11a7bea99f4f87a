import http.server
import socket
import threading
import time

import pytest

from capfilt.data import fetch as room
from capfilt.data.fetch import Fetching, fetch, is_public, opted_out, resolved
from capfilt.data.refs import Images, Ref
from capfilt.errors import ConfigError, ImageError

PRIVATE = (
    *("127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1"),
    *("255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%lo", "fc00::1", "fec0::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("2002:7f00:1::1", "2002:a9fe:a9fe::", "2001:0:7f00:1::", "2001:db8::1", "100::1", "no address", ""),
)
SPELLINGS = ("2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "[::ffff:7f00:1]", "localhost", "0")


class Site(http.server.BaseHTTPRequestHandler):
    """What the tests ask for: path → (status, headers, body)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Host"]))
        status, headers, body = self.server.pages.get(self.path, (404, {}, b""))
        self.send_response(status)
        if not {"Transfer-Encoding", "Content-Length"} & set(headers):
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.path == "/drip":
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.pages, server.asked, server.handle_error = {}, [], lambda *_: None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(site, path, *, answers=("127.0.0.1",), allowed=lambda _: True, **limits):
    """From the site as the host pics.test, of which the name server says `answers`."""
    url = f"http://pics.test:{site.server_port}{path}" if path.startswith("/") else path
    limits = {"allow_hosts": ("pics.test",), "limit_s": 2.0} | limits
    return fetch(url, Fetching(**limits), resolve=lambda *_: list(answers), allowed=allowed)


def reason(*args, **options):
    with pytest.raises(ImageError) as caught:
        get(*args, **options)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.fixture
def no_way_out(monkeypatch):
    """Fails the test where anything is connected to."""

    def refuse(*args, **_):
        raise AssertionError(f"connected to {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_an_image_comes(site):
    site.pages = {"/a%20b.jpg?q=%C3%A9": (200, {}, b"image")}
    assert get(site, "/a b.jpg?q=é") == b"image"
    assert site.asked == [("/a%20b.jpg?q=%C3%A9", f"pics.test:{site.server_port}")]
    site.pages = {"/c": (200, {"Transfer-Encoding": "chunked"}, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")}
    assert get(site, "/c") == b"abcde"


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::1"])
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_this_machine_gets_out(host, no_way_out):
    for url in (f"https://{host}/a.jpg", f"http://{host}/a.jpg"):
        with pytest.raises(ImageError) as caught:
            fetch(url, Fetching())
        assert caught.value.reason in ("url", "unreachable")
    with pytest.raises(ImageError):
        fetch(f"https://{host}/", Fetching(allow_hosts=(host.strip("[]"),)))


@pytest.mark.parametrize("address", PRIVATE)
def test_names_of_private_addresses_do_not_get_out(address, no_way_out):
    for answers in ([address], ["8.8.8.8", address]):
        with pytest.raises(ImageError, match="no public address") as caught:
            fetch("https://pics.test/a.jpg", Fetching(), resolve=lambda *_, a=answers: a)
        assert caught.value.reason == "url"


@pytest.mark.parametrize(
    "url",
    [
        *("http://pics.test/a.jpg", "ftp://pics.test/a", "file:///etc/passwd", "gopher://pics.test/", "//pics.test/a"),
        *("https://user:word@pics.test/a", "https://pics.test:22/", "https:///a.jpg", "https://pics.test:x/", "a.jpg"),
        *("https://[::1/", "https://" + "a" * 300 + ".test/", "https://a..test/"),
    ],
)
def test_only_https_of_public_hosts_is_fetched(url, no_way_out):
    with pytest.raises(ImageError) as caught:
        fetch(url, Fetching(), resolve=lambda *_: ["8.8.8.8"])
    assert caught.value.reason == "url"


def test_hosts_that_are_not_named(site, no_way_out):
    for url in ("https://other.test/", "https://notpics.test/", "https://pics.test.evil.test/"):
        assert reason(site, url) == "url"


def test_subdomains_of_a_named_host(site):
    site.pages = {"/a": (200, {}, b"x")}
    assert get(site, f"http://farm.PICS.test.:{site.server_port}/a") == b"x"


def test_a_name_is_resolved_once_and_that_address_is_connected_to(site):
    site.pages = {"/a": (200, {}, b"x")}
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    judged = []
    found = fetch(
        f"http://pics.test:{site.server_port}/a",
        Fetching(("pics.test",)),
        resolve=lambda *_: next(answers),
        allowed=lambda address: judged.append(address) or True,
    )
    assert found == b"x" and judged == ["127.0.0.1"] and next(answers)


def test_tls_is_for_the_name_and_goes_to_the_number(site, monkeypatch):
    site.pages = {"/a": (200, {}, b"x")}
    asked = []

    class Context:
        def wrap_socket(self, plain, server_hostname):
            asked.append((server_hostname, plain.getpeername()))
            return plain

    monkeypatch.setattr(room, "_context", Context)
    assert get(site, f"https://pics.test:{site.server_port}/a") == b"x"
    assert asked == [("pics.test", ("127.0.0.1", site.server_port))]
    assert site.asked == [("/a", f"pics.test:{site.server_port}")]


def test_certificates_are_checked():
    assert room._context().check_hostname and room._context().verify_mode == room.ssl.CERT_REQUIRED


def test_redirects_are_followed_and_judged_anew(site):
    site.pages = {f"/{i}": (302, {"Location": f"/{i + 1}"}, b"") for i in range(3)} | {"/3": (200, {}, b"end")}
    assert get(site, "/0") == b"end"
    assert reason(site, "/0", redirects=2) == "url"
    inside = ("http://169.254.169.254/latest/meta-data", "https://other.test/", "file:///etc/passwd", "//10.0.0.1/")
    for onward in inside:
        site.pages = {"/": (301, {"Location": onward}, b"")}
        assert reason(site, "/") == "url"
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])  # a name that has moved in between
    site.pages = {"/": (307, {"Location": "/again"}, b"")}
    with pytest.raises(ImageError, match=r"169\.254\.169\.254"):
        fetch(
            f"http://pics.test:{site.server_port}/",
            Fetching(("pics.test",)),
            resolve=lambda *_: next(answers),
            allowed=lambda address: address == "127.0.0.1",
        )
    assert ("/again", f"pics.test:{site.server_port}") not in site.asked


def test_limits(site):
    site.pages = {
        "/large": (200, {}, b"x" * 101),
        "/chunks": (200, {"Transfer-Encoding": "chunked"}, b"96\r\n" + b"x" * 150 + b"\r\n0\r\n\r\n"),
        "/drip": (200, {"Content-Length": "100"}, b""),
    }
    assert reason(site, "/large", max_bytes=100) == "too_large"
    assert reason(site, "/chunks", max_bytes=100) == "too_large"
    began = time.monotonic()
    assert reason(site, "/drip", limit_s=0.3) == "unreachable"
    assert time.monotonic() - began < 1
    with pytest.raises(ConfigError, match="limit_s above 0"):
        Fetching(limit_s=0)


def test_headers_that_drip_are_no_way_around_the_limit():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            connection, _ = server.accept()
            with connection, pytest.raises(OSError):
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        url = f"http://pics.test:{server.getsockname()[1]}/"
        with pytest.raises(ImageError, match=r"took too long|timed out"):
            fetch(url, Fetching(("pics.test",), limit_s=0.3), lambda *_: ["127.0.0.1"], lambda _: True)
        assert time.monotonic() - began < 1
        thread.join()


def test_what_is_not_there(site):
    site.pages = {"/500": (500, {}, b"x"), "/410": (410, {}, b""), "/cut": (200, {"Content-Length": "9"}, b"x")}
    assert reason(site, "/gone") == reason(site, "/410") == "missing_file"
    assert reason(site, "/500") == reason(site, "/cut") == "unreachable"
    assert reason(site, "/gone", answers=()) == "url"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert reason(site, f"http://pics.test:{closed.getsockname()[1]}/") == "unreachable"
    assert resolved("127.0.0.1", 443) == ["127.0.0.1"]


def test_the_next_address_is_tried_where_one_does_not_answer(site):
    site.pages = {"/a": (200, {}, b"x")}
    assert get(site, "/a", answers=("::1", "127.0.0.1")) == b"x"


def test_who_opts_out_is_left_alone(site):
    site.pages = {"/a": (200, {"X-Robots-Tag": "noai"}, b"x"), "/b": (302, {"X-Robots-Tag": "NoIndex"}, b"")}
    assert reason(site, "/a") == reason(site, "/b") == "opt_out"
    assert opted_out(["all", "nofollow, noimageai"]) and opted_out(["capfilt: noindex"]) and opted_out(["none"])
    assert opted_out(["max-snippet: 3, noai"]) and opted_out(["otherbot: noarchive, capfilt: noai"])
    assert not opted_out(["otherbot: noai, noindex"]) and not opted_out(["index, follow"]) and not opted_out([])


def test_images_fetch_only_where_they_are_told_to(site):
    site.pages = {"/a": (200, {}, b"x")}
    ref = Ref("url", f"http://127.0.0.1:{site.server_port}/a")
    for images in (Images(), Images(Fetching()), Images(Fetching(("127.0.0.1",)))):
        with pytest.raises(ImageError) as caught:
            images.load(ref)
        assert caught.value.reason == "url"
    assert not site.asked
