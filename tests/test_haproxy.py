"""A server as it is deployed: HAProxy in TCP mode, and worker processes that share a port.

HAProxy also tells a server its client's address, by both versions of the PROXY protocol.

HAProxy is Debian's package of that name; ``tests/interop/install.sh`` installs it. Where it is not
installed, the tests are skipped.
"""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import framecodec
from framecodec import Codec
from framecodec.catalogue import formats
from tests.helpers.subprocesses import ROOT, finish, printed_port, running
from tests.interop import processes

TIMEOUT = 20.0  # seconds; of every wait that a passing test does not need
WORKERS = 3

CONFIGURATION = """
global
    maxconn 1000

defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s

frontend messages
    bind 127.0.0.1:{port}
    default_backend workers

backend workers
    server workers 127.0.0.1:{server_port} {option}
"""


class Deployed(NamedTuple):
    address: tuple[str, int]  # of the proxy
    server: subprocess.Popen[str]


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    haproxy = processes.find("haproxy")
    configuration = tmp_path / "haproxy.cfg"

    def command(port: int) -> list[str]:
        text = CONFIGURATION.format(port=port, server_port=worker_port, option="")
        configuration.write_text(text)
        return [haproxy, "-q", "-db", "-f", str(configuration)]

    with running(ROOT / "examples" / "workers_server.py", "0", str(WORKERS)) as server:
        worker_port = printed_port(server)
        with processes.serving(command) as port:
            yield Deployed(("127.0.0.1", port), server)
        server.terminate()
        server.wait(TIMEOUT)


def test_whole_messages_of_many_clients_reach_every_worker(deployed: Deployed) -> None:
    def talk(number: int) -> set[bytes]:
        rng = random.Random(number)
        workers = set()
        with framecodec.connect(deployed.address, timeout=TIMEOUT) as client:
            for _ in range(20):
                messages = [
                    b"%d " % number + b"x" * rng.choice([0, 1, 100, 1400, 5000])
                    for _ in range(rng.randrange(1, 8))
                ]
                client.send_many(messages)
                for message in messages:
                    reply, _, worker = client.recv().partition(b" by worker ")
                    assert reply == message.upper()
                    workers.add(worker)
        assert len(workers) == 1  # a connection stays where it is
        return workers

    with ThreadPoolExecutor(16) as pool:
        workers = set().union(*pool.map(talk, range(100)))
    # That one of them gets none of 100 connections happens once in 10 ** 17 runs.
    assert workers == {b"%d" % number for number in range(1, WORKERS + 1)}


def test_a_large_message_passes_whole(deployed: Deployed) -> None:
    message = random.Random(1).randbytes(1 << 20) * 6
    with framecodec.connect(deployed.address, timeout=TIMEOUT) as client:
        client.send(message)
        reply, _, _ = client.recv().rpartition(b" by worker ")
    assert hashlib.sha256(reply).digest() == hashlib.sha256(message.upper()).digest()


def test_a_deployment_that_ends_answers_what_has_arrived(deployed: Deployed) -> None:
    with framecodec.connect(deployed.address, timeout=TIMEOUT) as client:
        client.send(b"hello")
        assert client.recv().startswith(b"HELLO by worker")
        # They travel in one piece, far smaller than the proxy's buffer: with the first one's reply
        # all have reached the worker.
        client.send_many([b"%d" % number for number in range(500)])
        assert client.recv().startswith(b"0 by")
        deployed.server.terminate()
        replies = [int(reply.split()[0]) for reply in client]
    assert replies == list(range(1, len(replies) + 1))
    assert finish(deployed.server) == "every worker has ended\n"


def test_the_end_of_a_client_and_of_a_broken_one_pass_the_proxy(deployed: Deployed) -> None:
    with framecodec.connect(deployed.address, timeout=TIMEOUT) as client:
        client.socket.sendall(b"\xff\xff\xff\xff")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.recv()
    with framecodec.connect(deployed.address, timeout=TIMEOUT) as client:
        client.send(b"hello")
        assert client.recv().startswith(b"HELLO")


def test_the_configuration_in_the_documentation_is_one(tmp_path: Path) -> None:
    haproxy = processes.find("haproxy")
    page = (ROOT / "docs" / "sockets.md").read_text(encoding="utf-8")
    _, block = page.split("```text\ndefaults\n")
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text("defaults\n" + block.partition("```")[0])
    checked = subprocess.run(
        [haproxy, "-c", "-f", str(configuration)], capture_output=True, timeout=TIMEOUT, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert b"WARNING" not in checked.stderr + checked.stdout


# --- the PROXY protocol ---------------------------------------------------------------------------


def proxy_head(version: int, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """Return the message of the PROXY protocol: its line, or command, family and addresses."""
    if version == 1:
        return f"TCP4 {source[0]} {destination[0]} {source[1]} {destination[1]}".encode()
    hosts = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    return b"\x21\x11" + hosts + struct.pack("!HH", source[1], destination[1])


@pytest.mark.parametrize(("version", "option"), [(1, "send-proxy"), (2, "send-proxy-v2")])
def test_a_server_reads_the_clients_address_and_switches(
    tmp_path: Path, version: int, option: str
) -> None:
    haproxy = processes.find("haproxy")
    configuration = tmp_path / "haproxy.cfg"

    def handler(conn: framecodec.FrameSocket[Any]) -> None:
        head = conn.recv()
        conn.switch(Codec.uint(4))
        conn.send(head)
        for message in conn:
            conn.send(message[::-1])

    with framecodec.serve(handler, ("127.0.0.1", 0), formats.proxy_protocol) as server:

        def command(port: int) -> list[str]:
            text = CONFIGURATION.format(port=port, server_port=server.address[1], option=option)
            configuration.write_text(text)
            return [haproxy, "-q", "-db", "-f", str(configuration)]

        with processes.serving(command) as port:
            address = ("127.0.0.1", port)
            with framecodec.connect(address, timeout=TIMEOUT) as client:
                source = client.socket.getsockname()
                client.send_many([b"first", b"x" * 100_000])
                assert client.recv() == proxy_head(version, source, address)
                assert client.recv() == b"tsrif"
                assert client.recv() == b"x" * 100_000
