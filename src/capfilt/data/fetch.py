"""Images from the net, fetched so that no address in a data set can reach what is not public. Off unless asked for.

An address is resolved once, and the connection goes to that very number, so that no second answer of a name server
counts; numbers that are not public (this machine, its network, cloud metadata) are refused in every spelling, and so
again after each redirect. One deadline covers everything from connecting to the last byte. Who asks that images stay
out of machine learning is left alone.

Reasons: `url` (refused here), `opt_out`, `too_large`, `missing_file` (404, 410), `unreachable` (all else, may pass).
"""

import functools
import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from capfilt.errors import ConfigError, ImageError

AGENT = "capfilt"
OPT_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
WITH_VALUE = ("max-snippet", "max-image-preview", "max-video-preview", "unavailable_after")  # `name: value`, no agent
MOVED = (301, 302, 303, 307, 308)
GLOBAL_V6 = ipaddress.ip_network("2000::/3")
PORTS = {"https": 443, "http": 80}
SAFE = "/%:@!$&'()*+,;=~?[]"  # characters of a URL that stay as they are

Resolve = Callable[[str, int], list[str]]
Allowed = Callable[[str], bool]


@dataclass(frozen=True)
class Fetching:
    """What may be fetched, and how much it may take.

    allow_hosts: only from these and their subdomains; empty: from any public host. http, and ports other than 443, are
                 for hosts that are named here.
    max_bytes:   of an image.
    limit_s:     seconds for one image, redirects included; a slow name server may add to it.
    redirects:   followed at most.
    """

    allow_hosts: tuple[str, ...] = ()
    max_bytes: int = 10 * 2**20
    limit_s: float = 5.0
    redirects: int = 3

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or self.limit_s <= 0 or self.redirects < 0:
            raise ConfigError(f"{self}: max_bytes from 1, limit_s above 0 and redirects from 0 are needed")


def is_public(address: str) -> bool:
    """Whether an IP address, as numbers, is one that everybody may reach.

    >>> is_public("8.8.8.8"), is_public("169.254.169.254"), is_public("::ffff:127.0.0.1")
    (True, False, False)
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip not in GLOBAL_V6 and not ip.ipv4_mapped:
            return False
        return is_public(str(inner)) if inner else ip.is_global
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def resolved(host: str, port: int) -> list[str]:
    """Every address of a name, each once, in the order to try them. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def fetch(url: str, fetching: Fetching, resolve: Resolve = resolved, allowed: Allowed = is_public) -> bytes:
    """The bytes at an address.

    Args:
        resolve: (host, port) → IP addresses.
        allowed: which of them may be connected to; all of a name's must be.

    Raises:
        ImageError: reasons in the module's docstring.
    """
    deadline = time.monotonic() + fetching.limit_s
    try:
        for _ in range(fetching.redirects + 1):
            body, onward = _one(url, fetching, resolve, allowed, deadline)
            if onward is None:
                return body
            url = urljoin(url, onward)
    except (OSError, http.client.HTTPException) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ImageError("unreachable", f"{url}: {why}") from None
    except ValueError as error:  # of an address that cannot be taken apart
        raise ImageError("url", f"{url}: {error}") from None
    raise ImageError("url", f"{url}: more than {fetching.redirects} redirects")


def _one(url: str, fetching: Fetching, resolve: Resolve, allowed: Allowed, deadline: float) -> tuple[bytes, str | None]:
    """The body, or where it has gone."""
    parts = urlsplit(url)
    host, port = _checked(url, parts, fetching)
    addresses = resolve(host, port)
    refused = [address for address in addresses if not allowed(address)]
    if refused or not addresses:
        raise ImageError("url", f"{url}: {host} is {', '.join(refused) or 'nowhere'}, no public address")
    with _connected(addresses, port, deadline) as plain:
        secure = parts.scheme == "https"
        with _context().wrap_socket(plain, server_hostname=host) if secure else plain as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(_request(parts, host, port))
            answer = http.client.HTTPResponse(_Reads(connection, deadline), method="GET")  # type: ignore[arg-type]
            answer.begin()
            return _body(url, answer, fetching.max_bytes)


def _checked(url: str, parts: SplitResult, fetching: Fetching) -> tuple[str, int]:
    """(host, port), if this address may be asked at all."""
    host = parts.hostname or ""
    if ":" not in host:  # an IPv6 address stays as it is
        host = host.rstrip(".").encode("idna").decode("ascii")
    named = any(host == name.lower() or host.endswith("." + name.lower()) for name in fetching.allow_hosts)
    if parts.scheme not in PORTS or not host or parts.username is not None:
        raise ImageError("url", f"{url}: only https://host/... is fetched")
    port = parts.port or PORTS[parts.scheme]
    if fetching.allow_hosts and not named:
        raise ImageError("url", f"{url}: {host} is none of the hosts that images are fetched from")
    if not named and (parts.scheme, port) != ("https", 443):
        raise ImageError("url", f"{url}: only https on port 443 is fetched from hosts that are not named")
    return host, port


def _connected(addresses: list[str], port: int, deadline: float) -> socket.socket:
    """The first that answers."""
    for last, address in enumerate(addresses, 1 - len(addresses)):
        try:
            return socket.create_connection((address, port), timeout=_left(deadline))
        except OSError:
            if last == 0:
                raise
    raise AssertionError("there is an address")


@functools.cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _request(parts: SplitResult, host: str, port: int) -> bytes:
    target = quote(parts.path or "/", safe=SAFE) + (f"?{quote(parts.query, safe=SAFE)}" if parts.query else "")
    name = f"[{host}]" if ":" in host else host
    name += f":{port}" if port != PORTS[parts.scheme] else ""
    lines = (f"GET {target} HTTP/1.1", f"Host: {name}", f"User-Agent: {AGENT}", "Accept: image/*")
    return "\r\n".join((*lines, "Accept-Encoding: identity", "Connection: close", "", "")).encode("ascii")


def _body(url: str, answer: http.client.HTTPResponse, most: int) -> tuple[bytes, str | None]:
    if opted_out(answer.headers.get_all("X-Robots-Tag") or []):
        raise ImageError("opt_out", f"{url}: asks not to be used (X-Robots-Tag)")
    if answer.status in MOVED and (onward := answer.headers.get("Location")):
        return b"", onward
    if answer.status != 200:
        reason = "missing_file" if answer.status in (404, 410) else "unreachable"
        raise ImageError(reason, f"{url}: HTTP {answer.status}")
    if (answer.length or 0) > most:
        raise ImageError("too_large", f"{url}: {answer.length} bytes, the limit is {most}")
    data = answer.read(most + 1)
    if len(data) > most:
        raise ImageError("too_large", f"{url}: more than {most} bytes")
    if answer.length:
        raise http.client.IncompleteRead(data, answer.length)
    return data, None


def opted_out(tags: list[str]) -> bool:
    """Whether the values of X-Robots-Tag ask everybody, or us by name, to leave an image alone.

    >>> opted_out(["noai"]), opted_out(["googlebot: noindex"]), opted_out(["max-snippet: 9, noindex"])
    (True, False, True)
    """
    return any(agent in ("", "*", AGENT) and rule in OPT_OUT for tag in tags for agent, rule in _rules(tag.lower()))


def _rules(tag: str) -> Iterator[tuple[str, str]]:
    """(whom it is for, the rule), in lower case; a name holds for what follows it."""
    agent = ""
    for rule in tag.split(","):
        name, colon, rest = rule.partition(":")
        if colon and name.strip() not in WITH_VALUE:
            agent, rule = name.strip(), rest
        yield agent, rule.strip()


def _left(deadline: float) -> float:
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError("took too long")
    return left


class _Reads(io.RawIOBase):
    """A connection as http.client wants it, read against one deadline however slowly it drips."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self._deadline))
        return self._connection.recv_into(buffer)
