"""Conversations with real peers: both directions, in each peer's own framing.

A test whose server is not installed is skipped with that reason. `nox -s interop` installs all
servers first, with `tests/interop/install.sh`, and fails if a test is skipped.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing.connection
import os
import pickle
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import Codec, FrameSocket
from framecodec.catalogue import PktLine, formats
from tests.interop.processes import TIMEOUT, find, read_line, running, serving

pwd = pytest.importorskip("pwd", reason="the peers are those of a Unix system")

PROGRAMS = Path(__file__).parent / "interop"


def connect(port: int, codec: Codec) -> FrameSocket:
    return framecodec.connect(("127.0.0.1", port), codec, timeout=TIMEOUT)


def exchange(conn: FrameSocket, messages: list[bytes], answers: list[bytes] | None = None) -> None:
    """Sends all messages while it receives: a peer that answers at once cannot block us."""
    sender = threading.Thread(target=conn.send_many, args=(messages,))
    sender.start()
    received = []
    for _ in messages:
        received.append(conn.recv())
    sender.join(TIMEOUT)
    assert not sender.is_alive()
    assert received == (messages if answers is None else answers)


# --- receivers of Twisted -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twisted_ports() -> Iterator[dict[str, int]]:
    pytest.importorskip("twisted", reason="Twisted is not installed")
    arguments = [sys.executable, "-W", "ignore", str(PROGRAMS / "twisted_echo.py")]
    with running(arguments, stdout=subprocess.PIPE) as process:
        yield json.loads(read_line(process))


@pytest.mark.parametrize(
    ("receiver", "name", "largest"),
    [
        ("Int8StringReceiver", "erlang1", 255),
        ("Int16StringReceiver", "erlang2", 65_535),
        ("Int32StringReceiver", "erlang4", 300_000),
        ("NetstringReceiver", "netstring", 300_000),
    ],
)
def test_a_receiver_of_twisted_gives_back_what_it_got(
    twisted_ports: dict[str, int], receiver: str, name: str, largest: int
) -> None:
    with connect(twisted_ports[receiver], formats[name]) as conn:
        exchange(
            conn, [b"", b"hello", b"\x00\xff,:\r\n", bytes(range(largest % 256)), b"z" * largest]
        )


# --- the standard library -------------------------------------------------------------------------

MULTIPROCESSING_SIZES = (0, 1, 5, 16_384, 16_385, 70_000, 1_000_000)


def test_a_listener_of_multiprocessing_gives_back_what_it_got() -> None:
    problems: list[BaseException] = []

    def echo() -> None:
        try:
            with listener.accept() as conn:
                for _ in MULTIPROCESSING_SIZES:
                    assert conn.poll(TIMEOUT)
                    conn.send_bytes(conn.recv_bytes())
        except BaseException as error:
            problems.append(error)

    with multiprocessing.connection.Listener(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        with connect(listener.address[1], formats.multiprocessing) as conn:
            exchange(conn, [bytes([size % 251]) * size for size in MULTIPROCESSING_SIZES])
        thread.join(TIMEOUT)
    assert not problems


def test_a_client_of_multiprocessing_is_understood_with_its_pickles() -> None:
    problems: list[BaseException] = []
    answers: list[Any] = []

    def talk() -> None:
        try:
            with multiprocessing.connection.Client(address) as conn:
                conn.send({"numbers": [1, 2, 3]})
                conn.send_bytes(b"x" * 100_000)
                assert conn.poll(TIMEOUT)
                answers.append(conn.recv_bytes())
        except BaseException as error:
            problems.append(error)

    listening = framecodec.listen(("127.0.0.1", 0), formats.multiprocessing)
    with listening as listener:
        listener.settimeout(TIMEOUT)
        address = listener.address
        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        with listener.accept() as conn:
            conn.settimeout(TIMEOUT)
            assert pickle.loads(conn.recv()) == {"numbers": [1, 2, 3]}
            assert conn.recv() == b"x" * 100_000
            conn.send(b"thanks")
            with pytest.raises(EOFError):
                conn.recv()
        thread.join(TIMEOUT)
    assert answers == [b"thanks"]
    assert not problems


def test_what_openssl_opens_with_is_one_record() -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_bio(incoming, outgoing, server_hostname="example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    stream = outgoing.read()
    [record], consumed = formats.tls.split(stream)
    assert consumed == len(stream)
    assert record[0] == 22  # handshake
    assert record[3] == 1  # ClientHello
    assert formats.tls.encode(record) == stream
    incoming.write(formats.tls.encode(b"\x15\x03\x03" + b"\x02\x28"))  # alert: handshake_failure
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        client.do_handshake()


# --- ZeroMQ ---------------------------------------------------------------------------------------

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04" + b"\x05READY" + b"\x0bSocket-Type" + b"\x00\x00\x00\x06DEALER"


def test_zeromq_exchanges_multipart_messages_with_us() -> None:
    zmq = pytest.importorskip("zmq", reason="pyzmq is not installed")
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt(zmq.RCVTIMEO, int(TIMEOUT * 1000))
        peer.setsockopt(zmq.SNDTIMEO, int(TIMEOUT * 1000))
        port = peer.bind_to_random_port("tcp://127.0.0.1")
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
            assert len(GREETING) == 64
            sock.sendall(GREETING)
            theirs = receive_exactly(sock, 64)
            assert theirs[:1] + theirs[9:11] == b"\xff\x7f\x03"
            with FrameSocket(sock, formats.zmtp) as conn:
                conn.send(READY)
                assert conn.recv().startswith(b"\x04\x05READY\x0bSocket-Type")
                parts = [b"a", b"", b"b" * 255, b"c" * 256, b"d" * 100_000]
                conn.send_many([b"\x01" + part for part in parts[:-1]] + [b"\x00" + parts[-1]])
                assert peer.recv_multipart() == parts
                peer.send_multipart(parts)
                assert [conn.recv() for _ in parts] == [
                    *(b"\x01" + part for part in parts[:-1]),
                    b"\x00" + parts[-1],
                ]


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, "the peer ended early"
        data += piece
    return data


# --- git ------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git = find("git")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": str(tmp_path),
    }
    for name in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{name}_NAME": "n", f"GIT_{name}_EMAIL": "n@example.com"}
    folder = tmp_path / "repository"
    for arguments in (
        ["init", "-q", str(folder)],
        ["-C", str(folder), "commit", "-q", "--allow-empty", "-m", "first"],
        ["-C", str(folder), "tag", "v1"],
    ):
        subprocess.run([git, *arguments], env=environment, timeout=TIMEOUT, check=True)
    return folder


def test_git_advertises_its_references_in_pkt_lines(repository: Path) -> None:
    arguments = [find("git"), "upload-pack", "--stateless-rpc", "--advertise-refs", str(repository)]
    output = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT, check=True).stdout
    lines, consumed = formats.pkt_line.split(output)
    assert consumed == len(output)
    assert lines[-1] is PktLine.FLUSH
    assert b" HEAD\0" in lines[0]
    assert lines[-2].endswith(b" refs/tags/v1\n")
    assert formats.pkt_line.encode_many(lines) == output


def test_git_understands_our_pkt_lines_and_delimiters(repository: Path) -> None:
    request = formats.pkt_line.encode_many(
        [b"command=ls-refs\n", PktLine.DELIM, b"ref-prefix refs/tags/\n", PktLine.FLUSH]
    )
    output = subprocess.run(
        [find("git"), "upload-pack", "--stateless-rpc", str(repository)],
        env={**os.environ, "GIT_PROTOCOL": "version=2"},
        input=request,
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
    ).stdout
    lines, consumed = formats.pkt_line.split(output)
    assert consumed == len(output)
    assert [line.split()[1] for line in lines[:-1]] == [b"refs/tags/v1"]
    assert lines[-1] is PktLine.FLUSH


# --- brokers, caches, name servers ----------------------------------------------------------------


def test_an_mqtt_broker_delivers_what_we_publish(tmp_path: Path) -> None:
    program = find("mosquitto")
    configuration = tmp_path / "mosquitto.conf"

    def command(port: int) -> list[str]:
        lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false"]
        if os.geteuid() == 0:
            lines.append("user root")
        configuration.write_text("\n".join(lines) + "\n")
        return [program, "-c", str(configuration)]

    def text(string: bytes) -> bytes:
        return struct.pack("!H", len(string)) + string

    with serving(command) as port, connect(port, formats.mqtt) as conn:
        conn.send(b"\x10" + text(b"MQTT") + b"\x04\x02\x00\x3c" + text(b"framecodec"))
        assert conn.recv() == b"\x20\x00\x00"  # CONNACK: accepted
        conn.send(b"\x82\x00\x01" + text(b"topic") + b"\x00")
        assert conn.recv() == b"\x90\x00\x01\x00"  # SUBACK
        published = [
            b"\x30" + text(b"topic") + b"z" * size
            for size in (0, 1, 119, 120, 121, 20_000, 3_000_000)
        ]
        exchange(conn, published)
        conn.send(b"\xc0")
        assert conn.recv() == b"\xd0"  # PINGRESP
        conn.send(b"\xe0")
        with pytest.raises(EOFError):
            conn.recv()


def test_memcached_stores_and_finds_in_its_binary_protocol() -> None:
    program = find("memcached")

    def command(port: int) -> list[str]:
        user = ["-u", pwd.getpwuid(0).pw_name] if os.geteuid() == 0 else []
        return [program, "-l", "127.0.0.1", "-p", str(port), "-U", "0", *user]

    def request(opcode: int, key: bytes = b"", extras: bytes = b"", value: bytes = b"") -> bytes:
        head = struct.pack("!BBHBBH", 0x80, opcode, len(key), len(extras), 0, 0)
        return head + struct.pack("!IQ", 7, 0) + extras + key + value

    with serving(command) as port, connect(port, formats.memcached) as conn:
        value = b"v" * 100_000
        conn.send(request(0x01, b"key", bytes(8), value))  # Set
        answer = conn.recv()
        assert answer[:2] + answer[6:8] == b"\x81\x01\x00\x00"
        conn.send_many([request(0x00, b"key"), request(0x00, b"none"), request(0x0A)])
        found, missing, noop = conn.recv(), conn.recv(), conn.recv()
        assert found[:2] + found[6:8] == b"\x81\x00\x00\x00"
        assert found[20 + 4 :] == value  # after the flags
        assert missing[6:8] == b"\x00\x01"  # key not found
        assert (noop[:2], len(noop)) == (b"\x81\x0a", 20)


def test_a_name_server_answers_over_tcp() -> None:
    program = find("dnsmasq")

    def command(port: int) -> list[str]:
        user = ["--user=root"] if os.geteuid() == 0 else []
        return [
            *(program, "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="),
            *("--no-resolv", "--no-hosts", "--no-ping", f"--port={port}"),
            *("--listen-address=127.0.0.1", "--bind-interfaces"),
            *("--address=/example.test/192.0.2.7", "--txt-record=long.test," + "t" * 250),
            *user,
        ]

    def query(identity: int, name: bytes, kind: int) -> bytes:
        labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
        return (
            struct.pack("!6H", identity, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!xHH", kind, 1)
        )

    with serving(command) as port, connect(port, formats.dns) as conn:
        conn.send(query(1, b"example.test", 1))
        answer = conn.recv()
        assert answer[:2] == b"\x00\x01"
        assert answer.endswith(bytes([192, 0, 2, 7]))
        conn.send(query(2, b"long.test", 16))
        answer = conn.recv()
        assert answer[:2] == b"\x00\x02"
        assert answer.endswith(b"t" * 250)


# --- PostgreSQL -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres_port() -> Iterator[int]:
    initdb, program = find("initdb"), find("postgres")
    # The server refuses to run as root; another user must be able to reach its folder.
    account: dict[str, Any] = {}
    folder = tempfile.mkdtemp(prefix="framecodec-postgres-")
    try:
        if os.geteuid() == 0:
            accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
            unprivileged = (entry for entry in accounts.values() if entry.pw_uid == 65_534)
            user = accounts.get("postgres") or next(unprivileged, None)
            if user is None:
                pytest.skip("no unprivileged user to run PostgreSQL as")
            os.chown(folder, user.pw_uid, user.pw_gid)
            account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = os.path.join(folder, "data")
        subprocess.run(
            [
                initdb,
                "-D",
                data,
                "-U",
                "me",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
            **account,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            capture_output=True,
            timeout=60,
            check=True,
        )

        def command(port: int) -> list[str]:
            settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
            options = [option for setting in settings for option in ("-c", setting)]
            return [program, "-D", data, "-p", str(port), *options]

        with serving(command, stop=signal.SIGINT, cwd=folder, **account) as port:
            deadline = time.monotonic() + TIMEOUT
            while not serves_queries(port):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


START = struct.pack("!I", 196_608) + b"user\0me\0database\0postgres\0\0"  # version 3.0


def serves_queries(port: int) -> bool:
    """Whether it has started: for a while it takes connections only to say that it has not."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
        sock.sendall(formats.postgres_startup.encode(START))
        with FrameSocket(sock, formats.postgres) as conn:
            message: bytes = conn.recv()
            return message[:1] == b"R"


def test_postgresql_answers_queries(postgres_port: int) -> None:
    with socket.create_connection(("127.0.0.1", postgres_port), timeout=TIMEOUT) as sock:
        sock.sendall(formats.postgres_startup.encode(struct.pack("!I", 80_877_103)))  # SSLRequest
        assert sock.recv(1) == b"N"  # one byte, without a frame
        sock.sendall(formats.postgres_startup.encode(START))
        with FrameSocket(sock, formats.postgres) as conn:
            opening = until_ready(conn)
            assert opening[0] == b"R" + bytes(4)  # AuthenticationOk
            assert any(message.startswith(b"Sserver_version\0") for message in opening)
            conn.send(b"Q" + b"SELECT 'hello', repeat('x', 300000), NULL\0")
            answer = until_ready(conn)
            [row] = [message for message in answer if message[:1] == b"D"]
            assert row == b"".join(
                (
                    b"D" + struct.pack("!h", 3),
                    struct.pack("!i", 5) + b"hello",
                    struct.pack("!i", 300_000) + b"x" * 300_000,
                    struct.pack("!i", -1),
                )
            )
            conn.send_many([b"Q" + b"SELECT 1\0"] * 100)
            for _ in range(100):
                assert b"CSELECT 1\0" in until_ready(conn)
            conn.send(b"X")
            with pytest.raises(EOFError):
                conn.recv()


def until_ready(conn: FrameSocket) -> list[bytes]:
    messages = [conn.recv()]
    while messages[-1] != b"ZI":
        messages.append(conn.recv())
    return messages


# --- a language server ----------------------------------------------------------------------------


def test_a_language_server_answers_over_its_standard_streams() -> None:
    pytest.importorskip("pylsp", reason="python-lsp-server is not installed")
    arguments = [sys.executable, "-W", "ignore", "-m", "pylsp"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running(arguments, bufsize=0, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        splitter = formats.lsp.splitter()
        received: list[dict[str, Any]] = []

        def say(method: str, **rest: Any) -> None:
            text = json.dumps({"jsonrpc": "2.0", "method": method, **rest})
            process.stdin.write(formats.lsp.encode(text.encode()))  # type: ignore[union-attr]

        def answer_to(identity: int) -> Any:
            while not any(message.get("id") == identity for message in received):
                data = os.read(process.stdout.fileno(), 65536)  # type: ignore[union-attr]
                assert data, "the server ended early"
                received.extend(json.loads(message) for message in splitter.feed(data))
            return next(message for message in received if message.get("id") == identity)

        with watchdog(process):
            say("initialize", id=1, params={"processId": None, "rootUri": None, "capabilities": {}})
            assert "capabilities" in answer_to(1)["result"]
            say("initialized", params={})
            say("shutdown", id=2)
            assert answer_to(2)["result"] is None
            say("exit")
            process.stdin.close()
            process.wait(TIMEOUT)


@contextlib.contextmanager
def watchdog(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A time-out for reading from pipes: the process is killed, and they end."""
    timer = threading.Timer(TIMEOUT, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


# --- Erlang ---------------------------------------------------------------------------------------

ERLANG = {
    "1": ("erlang1", [b"", b"hello", b"\xff" * 255]),
    "2": ("erlang2", [b"", b"hello", b"\xff" * 65_535]),
    "4": ("erlang4", [b"", b"hello", b"\xff" * 300_000]),
    "asn1": (
        "ber",
        [b"\x02\x05", b"\x30" + b"a" * 127, b"\x30" + b"b" * 128, b"\x30" + b"c" * 70_000],
    ),
    "sunrm": ("oncrpc", [b"call", b"r" * 70_000]),
    "tpkt": ("tpkt", [b"\x00\x02\xf0\x80", b"\x00" + b"t" * 65_531]),
    # Without padding, which Erlang takes off and leaves announced in the header.
    "fcgi": ("fastcgi", [b"\x06\x00\x01\x00\x00hello", b"\x06\x00\x01\x00\x00" + b"f" * 65_535]),
}


@pytest.fixture(scope="module")
def erlang_ports() -> Iterator[dict[str, int]]:
    arguments = [find("escript"), str(PROGRAMS / "erlang_echo.escript"), *ERLANG]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {**os.environ, "HOME": os.environ.get("HOME", "/tmp")}
    with running(arguments, env=environment, **pipes) as process:
        ports = {}
        while (line := read_line(process)) != "ready":
            kind, port = line.split()
            ports[kind] = int(port)
        yield ports


@pytest.mark.parametrize("kind", ERLANG)
def test_erlang_gives_back_what_it_got(erlang_ports: dict[str, int], kind: str) -> None:
    name, messages = ERLANG[kind]
    with connect(erlang_ports[kind], formats[name]) as conn:
        exchange(conn, messages)


# --- ssh-agent ------------------------------------------------------------------------------------


def test_an_ssh_agent_lists_its_keys() -> None:
    program = find("ssh-agent")
    with tempfile.TemporaryDirectory(prefix="framecodec-") as folder:
        path = os.path.join(folder, "agent")
        with running([program, "-D", "-a", path], stdout=subprocess.PIPE) as process:
            read_line(process)  # it says where it listens once it does
            with framecodec.connect(path, formats.ssh_agent, timeout=TIMEOUT) as conn:
                conn.send(b"\x0b")  # SSH_AGENTC_REQUEST_IDENTITIES
                assert conn.recv() == b"\x0c" + bytes(4)  # SSH_AGENT_IDENTITIES_ANSWER, none
