"""Text protocols of the catalogue, spoken with real peers."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator

import pytest

import framecodec
from framecodec import Codec, FrameSocket, formats
from tests.interop.processes import TIMEOUT, find, serving

pwd = pytest.importorskip("pwd", reason="the peers are those of a Unix system")


def connect(port: int, codec: Codec) -> FrameSocket:
    return framecodec.connect(("127.0.0.1", port), codec, timeout=TIMEOUT)


def test_memcached_stores_and_finds_in_its_text_protocol() -> None:
    program = find("memcached")

    def command(port: int) -> list[str]:
        user = ["-u", pwd.getpwuid(0).pw_name] if os.geteuid() == 0 else []
        return [program, "-l", "127.0.0.1", "-p", str(port), "-U", "0", *user]

    with serving(command) as port, connect(port, formats.memcached_text) as conn:
        value = b"a\r\nb" * 50_000
        conn.send(b"set key 7 0 %d\r\n%b" % (len(value), value))
        assert conn.recv() == b"STORED"
        conn.send_many([b"get key none", b"mg key v f", b"incr none 1"])
        assert conn.recv() == b"VALUE key 7 %d\r\n%b" % (len(value), value)
        assert conn.recv() == b"END"
        assert conn.recv() == b"VA %d f7\r\n%b" % (len(value), value)
        assert conn.recv() == b"NOT_FOUND"


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        if self.path == "/chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def http_port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(TIMEOUT)


def test_a_web_server_answers_several_requests_of_one_connection(http_port: int) -> None:
    with connect(http_port, formats.http1) as conn:
        for path, body in ((b"/", b"x" * 200_000), (b"/chunks", b"y" * 50_000), (b"/", b"")):
            conn.send(
                b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
                % (path, len(body), body)
            )
            head, _, answer = conn.recv().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            assert answer == (chunked if path == b"/chunks" else body)
