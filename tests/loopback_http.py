"""The HTTP of `loopback_hub`: routes, errors, byte ranges, a record of the requests, and faults made on purpose."""

import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


# What each placeholder of a route matches: `{repo}` matches `alice/tiny`, `{sha}` 64 hexadecimal digits.
PLACEHOLDERS = {"repo": r"[\w.-]+/[\w.-]+", "revision": "[^/]+", "path": ".+", "sha": "[0-9a-f]{64}", "part": r"\d+"}


class HttpError(Exception):
    """An answer that is an error. The client looks at its `code`, such as `RepoNotFound`, more than at its status."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}


@dataclass
class Fault:
    """Makes the next `times` requests of `method` whose path contains `path` fail.

    status: the status to answer with.
    cut: the number of bytes, of the request's body or of the answer's, after which the connection breaks off.
    """

    method: str
    path: str
    status: int | None = None
    cut: int | None = None
    times: int = 1


@dataclass(frozen=True)
class Seen:
    """A request.

    method, path: what was asked for.
    size: how many bytes of its body arrived.
    range: the header `Range`, if there is one.
    """

    method: str
    path: str
    size: int
    range: str | None


class LoopbackServer(ThreadingHTTPServer):
    """One of the two servers. `seen` and `faults` may be shared with the other."""

    daemon_threads = True

    def __init__(self, handler: type["LoopbackHandler"], state: Any):
        super().__init__(("127.0.0.1", 0), handler)
        self.state = state
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Find the fault that this request meets, and count it."""
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and fault.path in path:
                fault.times -= 1
                return fault
        return None

    def handle_error(self, request: Any, client_address: Any):
        """Print nothing: some tests let the client close the connection."""


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers a request by the method that `ROUTES` names for it."""

    ROUTES: tuple[tuple[str, str, str], ...] = ()
    protocol_version = "HTTP/1.1"

    def __init_subclass__(cls):
        # "/api/models/{repo}" becomes an expression with a group named repo.
        cls.patterns = [
            (
                method,
                re.compile(re.sub(r"\{(\w+)\}", lambda name: f"(?P<{name[1]}>{PLACEHOLDERS[name[1]]})", path)),
                name,
            )
            for method, path, name in cls.ROUTES
        ]

    def answer(self):
        """Answer a request: fail if a fault says so, else call the method of its route."""
        address = urlsplit(self.path)
        self.query, self.state = parse_qs(address.query), self.server.state
        self.fault = self.server.take_fault(self.command, address.path)
        self.body = self.read_body()
        self.server.seen.append(Seen(self.command, address.path, len(self.body), self.headers.get("Range")))
        try:
            if self.fault and self.fault.status:
                raise HttpError(self.fault.status, "out of order")
            if self.fault and len(self.body) and self.fault.cut is not None:
                return self.hang_up()
            self.authenticate()
            method = "GET" if self.command == "HEAD" else self.command
            for its_method, pattern, name in self.patterns:
                if its_method == method and (found := pattern.fullmatch(address.path)):
                    arguments = {key: unquote(value) for key, value in found.groupdict().items()}
                    return getattr(self, name)(**arguments)
            raise HttpError(404, f"no such route: {self.command} {address.path}")
        except HttpError as error:
            self.send_json({"error": str(error)}, error.status, error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    # ---- the request ----

    def read_body(self) -> bytes:
        """Read the body, of known length or in chunks; after a fault's `cut` the rest is not read."""
        limit = None if self.fault is None else self.fault.cut
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length", 0))
            return self.rfile.read(length if limit is None else min(length, limit))
        chunks: list[bytes] = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            if limit is not None and sum(map(len, chunks)) + size > limit:
                break
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        else:
            self.rfile.readline()
        return b"".join(chunks)

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)

    # ---- the answer ----

    def send(self, content: bytes, status: int = 200, headers: Mapping[str, str] | None = None):
        """Send an answer, or the part of it that a fault lets through."""
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = None if self.fault is None or self.fault.status else self.fault.cut
        self.wfile.write(content[:cut])
        if cut is not None:
            self.hang_up()

    def send_json(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None):
        self.send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send_range(self, content: bytes, headers: Mapping[str, str]):
        """Send the bytes that the header `Range` asks for, or all."""
        # "bytes=100-199" or, up to the end, "bytes=100-"
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.send(content, 200, {"Accept-Ranges": "bytes", **headers})
        start, stop = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content))
        if start >= len(content):
            raise HttpError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{len(content)}"})
        span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        self.send(content[start:stop], 206, {**span, **headers})

    def hang_up(self):
        """Close the connection, even in the middle of an answer."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any):
        """Print nothing; `seen` is the log."""
