"""The examples, each as the two commands that its text names: a server and a client process."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import framecodec
from tests.helpers.subprocesses import ROOT, finish, heard, printed_port, running, say

pytestmark = pytest.mark.slow  # each test starts one to five Python processes

EXAMPLES = ROOT / "examples"

# name: what the server prints after its port, what the client prints
OUTPUT = {
    "greeting": ("the client says 再见\n", "the server says 你好\n"),
    "sticky": ("", "before: b'hello' b'byeb'\nafter: b'hello' b'byebye'\n"),
    "ascii_length": ("", "received b'hello'\nreceived b'byebye'\n"),
    "struct_length": ("", "received b'HELLO' b'BYEBYE'\n"),
}

# The same of servers that go on serving.
OUTPUT_OF_CLIENTS = {
    "selectors": "".join(
        f"received b'HELLO FROM {number}' b'BYEBYE FROM {number}'\n" for number in (2, 1, 0)
    ),
    "socketserver": "received b'HELLO' b'BYEBYE'\n",
    "asyncio_echo": "received b'hello' b'byebye'\n",
    "serve": "the server ended the bad connection: True\nreceived b'HELLO' b'BYEBYE'\n",
    "channels": (
        "Ann hears {'channel': 'tea', 'joined': 'Ann'}\n"
        "Bob hears {'channel': 'tea', 'joined': 'Bob'}\n"
        "Eve hears {'channel': 'coffee', 'joined': 'Eve'}\n"
        "Ann hears {'channel': 'tea', 'joined': 'Bob'}\n"
        "Ann hears {'channel': 'tea', 'from': 'Bob', 'text': 'hello'}\n"
        "Bob hears {'channel': 'tea', 'from': 'Bob', 'text': 'hello'}\n"
        "Eve hears {'channel': 'coffee', 'from': 'Eve', 'text': 'alone?'}\n"
    ),
    "messages": (
        "welcome, Ann\nwelcome, Bob\nBob hears Ann: hello\nAnn hears Ann: hello and Bob: byebye\n"
    ),
}

# These have their own tests below.
OTHERS = {
    "gevent",
    "language",
    "logging_proxy",
    "pipelined",
    "serial_device",
    "tls_files",
    "asyncio_chat",
    "asyncio_files",
    "asyncio_request",
    "asyncio_shutdown",
    "chat",
    "peer",
    "recv_file",
    "send_file",
    "udp_chat",
    "workers",
}

# The servers that Ctrl-C ends without a last word.
ENDED_BY_CTRL_C = [
    "pipelined_server",
    "channels_server",
    "asyncio_chat_server",
    "asyncio_echo_server",
    "asyncio_files_server",
    "asyncio_request_server",
    "selectors_server",
    "socketserver_server",
    "udp_chat_server",
]


def programs() -> set[str]:
    return {path.name for path in EXAMPLES.glob("*.py")}


def fed(source: int, program: str, port: str) -> str:
    """What a program prints whose input is a file, and that ends without a word of error."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / program, port],
        stdin=source,
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def interrupted(process: subprocess.Popen[str]) -> str:
    """What a process still prints that Ctrl-C ends, while its input stays open."""
    process.send_signal(signal.SIGINT)
    process.wait()
    return finish(process)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Processes obey Ctrl-C, also where the tests run in the background of a shell that ignores it:
    a signal that is ignored stays so in a new process, a signal that has a handler does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", OUTPUT)
def test_an_example_says_what_it_should(name: str) -> None:
    with running(EXAMPLES / f"{name}_server.py", "0") as server:
        port = printed_port(server)
        with running(EXAMPLES / f"{name}_client.py", port) as client:
            client_output = finish(client)
        server_output = finish(server)
    assert (server_output, client_output) == OUTPUT[name]


@pytest.mark.parametrize("name", OUTPUT_OF_CLIENTS)
def test_an_example_serves_one_client_after_the_other(name: str) -> None:
    with running(EXAMPLES / f"{name}_server.py", "0") as server:
        port = printed_port(server)
        for _ in range(2):
            with running(EXAMPLES / f"{name}_client.py", port) as client:
                assert finish(client) == OUTPUT_OF_CLIENTS[name]
        assert server.poll() is None


def test_the_ascii_length_server_sends_the_bytes_that_it_draws() -> None:
    with running(EXAMPLES / "ascii_length_server.py", "0") as server:
        port = int(printed_port(server))
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            wire = b"".join(iter(lambda: client.recv(100), b""))
        finish(server)
    assert wire == b"0005hello0006byebye"


@pytest.mark.parametrize(
    "name",
    sorted(
        {path.stem for path in EXAMPLES.glob("*_server.py")}
        - {"gevent_server", "tls_files_server", "udp_chat_server"}
    ),
)
def test_a_server_starts_where_connections_of_the_last_run_still_fade_away(name: str) -> None:
    with framecodec.listen(("127.0.0.1", 0)) as listener:
        port = str(listener.address[1])
        with framecodec.connect(listener.address, timeout=10) as client:
            listener.accept().close()  # who closes first has the connection in TIME_WAIT
            assert list(client) == []
    with running(EXAMPLES / f"{name}.py", port) as server:
        assert printed_port(server) == port


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("name", ENDED_BY_CTRL_C)
def test_ctrl_c_ends_a_server_without_a_word_of_error(name: str) -> None:
    with running(EXAMPLES / f"{name}.py", "0", typed=True) as server:
        printed_port(server)
        assert interrupted(server) == ""


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_server_of_socketserver_while_a_client_is_there() -> None:
    with running(EXAMPLES / "socketserver_server.py", "0") as server:
        address = ("127.0.0.1", int(printed_port(server)))
        with framecodec.connect(address, framecodec.Codec.digits(4), timeout=10) as client:
            client.send(b"hello")
            assert client.recv() == b"HELLO"
            assert interrupted(server) == ""


# --- many clients in one thread -------------------------------------------------------------------


def test_a_client_that_stops_holds_up_nobody_in_a_server_of_one_thread() -> None:
    large = bytes(4_000_000)
    with running(EXAMPLES / "selectors_server.py", "0") as server:
        address = ("127.0.0.1", int(printed_port(server)))
        with (
            socket.create_connection(address, 10) as half,
            framecodec.connect(address, timeout=10) as deaf,
            framecodec.connect(address, timeout=10) as lively,
        ):
            half.sendall(b"\0\0\0\5hel")  # and no more
            deaf.settimeout(0)
            asked = 0
            while True:  # until it takes no more requests, because the replies are not read
                try:
                    deaf.send(large)
                    asked += 1
                except BlockingIOError as error:
                    asked += error.message_started
                    deaf.settimeout(10)
                    break
            for number in range(100):
                lively.send(b"hello %d" % number)
                assert lively.recv() == b"HELLO %d" % number
            half.sendall(b"lo")
            assert half.recv(100) == b"\0\0\0\5HELLO"
            sender = threading.Thread(target=deaf.flush)
            sender.start()
            assert [len(deaf.recv()) for _ in range(asked)] == [len(large)] * asked
            sender.join()
            half.sendall(b"\xff\xff\xff\xff")
            assert heard(server).startswith("a client left: message too large: ")
        assert [heard(server).partition(" (peer ")[0] for _ in "12"] == [
            "a client left: the peer closed the connection; the last frame was whole"
        ] * 2


# --- what a person types --------------------------------------------------------------------------


def test_in_the_chat_both_sides_speak_whenever_they_like() -> None:
    chat = EXAMPLES / "chat.py"
    with running(chat, "listen", "0", typed=True) as one:
        port = printed_port(one)
        with running(chat, "connect", port, typed=True) as other:
            say(other, "你好")
            say(other, "anybody there?")
            assert [heard(one) for _ in "12"] == ["they say 你好", "they say anybody there?"]
            say(one, "yes")
            say(one, "")
            assert [heard(other) for _ in "12"] == ["they say yes", "they say "]
            # One side ends its input; what the other one still says arrives, until it ends too.
            other.stdin.close()
            other.stdin = None
            assert heard(one) == "they have left"
            say(one, "one word more")
            assert heard(other) == "they say one word more"
            assert finish(one) == ""  # the end of its input
            assert finish(other) == "they have left\n"


def test_nothing_that_is_typed_in_the_chat_is_lost_where_they_say_nothing() -> None:
    chat = EXAMPLES / "chat.py"
    with running(chat, "listen", "0") as one:  # without an input
        port = printed_port(one)
        with running(chat, "connect", port, typed=True) as other:
            assert heard(other) == "they have left"
            for number in range(1000):
                say(other, str(number))
            assert finish(other) == ""
        expected = [f"they say {number}" for number in range(1000)]
        assert finish(one).splitlines() == [*expected, "they have left"]


@pytest.mark.parametrize("how", ["closed", "reset", "cut off"])
def test_the_chat_ends_without_a_word_of_error_where_nobody_listens_any_more(how: str) -> None:
    with framecodec.listen(("127.0.0.1", 0)) as listener:
        port = str(listener.address[1])
        with running(EXAMPLES / "chat.py", "connect", port, typed=True) as chat:
            with listener.accept() as conn:
                if how == "reset":
                    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif how == "cut off":
                    conn.socket.sendall(b"\0\0\0\5hel")
            assert heard(chat) == "they have left"
            with contextlib.suppress(BrokenPipeError):  # it has ended
                for line in (
                    "the first one is told",
                    "that the client is gone",
                    "and the last one",
                ):
                    say(chat, line)
            chat.wait()  # its input is still open
            assert finish(chat) == ""


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_chat_without_a_word_of_error() -> None:
    chat = EXAMPLES / "chat.py"
    with running(chat, "listen", "0", typed=True) as one:
        printed_port(one)
        assert interrupted(one) == ""  # no client has connected
    with running(chat, "listen", "0", typed=True) as one:
        port = printed_port(one)
        with running(chat, "connect", port, typed=True) as other:
            say(other, "hello")
            assert heard(one) == "they say hello"
            assert interrupted(one) == ""
            assert heard(other) == "they have left"
            assert interrupted(other) == ""


def test_the_chat_over_udp_ends_on_either_side_and_the_next_one_is_served() -> None:
    def next_client() -> AbstractContextManager[subprocess.Popen[str]]:
        return running(EXAMPLES / "udp_chat_client.py", port, typed=True)

    with running(EXAMPLES / "udp_chat_server.py", "0", typed=True) as server:
        port = printed_port(server)
        with next_client() as client:
            say(client, "hello")
            assert heard(server) == "they say hello"
            with next_client() as another:  # while the first one is served
                say(another, "me too")
                say(server, "你好")
                assert finish(another) == "they say busy, goodbye\n"
            assert heard(client) == "they say 你好"
            say(client, "goodbye")  # the client's
            assert heard(server) == "they say goodbye"
            assert heard(server) == "waiting for the next one"
            assert finish(client) == ""
        with next_client() as client:
            say(client, "hello again")
            assert heard(server) == "they say hello again"
            say(server, "goodbye")  # the server's
            assert finish(client) == "they say goodbye\n"
            assert heard(server) == "waiting for the next one"
        with next_client() as client:  # an end of the input is a goodbye too
            assert finish(client) == ""
            assert heard(server) == "they say goodbye"
            assert heard(server) == "waiting for the next one"
        assert server.poll() is None


def test_a_line_that_ends_with_goodbye_ends_the_chat_over_udp_on_both_sides() -> None:
    with running(EXAMPLES / "udp_chat_server.py", "0", typed=True) as server:
        port = printed_port(server)
        with running(EXAMPLES / "udp_chat_client.py", port, typed=True) as client:
            say(client, "hello")
            say(server, "well, goodbye")  # the server's
            assert finish(client) == "they say well, goodbye\n"
            assert [heard(server) for _ in "12"] == ["they say hello", "waiting for the next one"]
        with running(EXAMPLES / "udp_chat_client.py", port, typed=True) as client:
            say(client, "well, goodbye")  # the client's
            assert heard(server) == "they say well, goodbye"
            assert heard(server) == "waiting for the next one"
            assert finish(client) == ""


def test_a_partner_over_udp_who_went_without_a_word_holds_up_nobody_for_ever() -> None:
    with running(EXAMPLES / "udp_chat_server.py", "0", "0", typed=True) as server:  # no patience
        port = printed_port(server)
        with running(EXAMPLES / "udp_chat_client.py", port, typed=True) as client:
            say(client, "hello")
            assert heard(server) == "they say hello"
        say(server, "anybody there?")
        with running(EXAMPLES / "udp_chat_client.py", port, typed=True) as client:
            say(client, "me too")
            assert heard(server) == "they are silent, and another client calls"
            assert heard(server) == "they say me too"
            say(server, "goodbye")
            assert finish(client) == "they say goodbye\n"
            assert heard(server) == "waiting for the next one"


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_client_of_a_chat_over_udp_without_a_word_of_error() -> None:
    with running(EXAMPLES / "udp_chat_server.py", "0", typed=True) as server:
        port = printed_port(server)
        with running(EXAMPLES / "udp_chat_client.py", port, typed=True) as client:
            say(client, "hello")
            assert heard(server) == "they say hello"
            assert interrupted(client) == ""


def test_each_peer_listens_and_connects() -> None:
    with running(EXAMPLES / "peer.py", "0") as one:
        port = printed_port(one)
        with running(EXAMPLES / "peer.py", "0", port) as other:
            other_port = printed_port(other)
            assert finish(other) == f"hello {other_port}, here is {port}\n"
        assert finish(one) == f"hello {port}, here is {other_port}\n"


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5_000_001])
def test_a_file_arrives_as_it_was(size: int, tmp_path: Path) -> None:
    source, folder = tmp_path / "数据.bin", tmp_path / "arrived"
    source.write_bytes(random.Random(size).randbytes(size))
    folder.mkdir()
    with running(EXAMPLES / "recv_file.py", "0", folder) as receiver:
        port = printed_port(receiver)
        with running(EXAMPLES / "send_file.py", source, port) as sender:
            assert finish(sender) == "the receiver says it is whole\n"
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        assert finish(receiver) == f"received 数据.bin of {size} bytes, sha256 {digest}\n"
    assert [path.name for path in folder.iterdir()] == ["数据.bin"]
    assert (folder / "数据.bin").read_bytes() == source.read_bytes()
    # The mode is a new file's, as the umask has it.
    assert (folder / "数据.bin").stat().st_mode == source.stat().st_mode


@pytest.mark.parametrize("how", ["damaged", "cut off"])
def test_a_file_that_is_not_as_it_was_is_not_kept(how: str, tmp_path: Path) -> None:
    codec = framecodec.Codec.uint(8)
    with running(EXAMPLES / "recv_file.py", "0", tmp_path) as receiver:
        address = ("127.0.0.1", int(printed_port(receiver)))
        with framecodec.connect(address, codec, timeout=10) as conn:
            conn.send(b"../../etc/passwd")  # of which only the name counts
            if how == "damaged":
                conn.send_many([b"the file", hashlib.sha256(b"another file").digest()])
                assert conn.recv() == b"it is damaged"
            else:
                conn.socket.sendall(codec.encode(bytes(1_000_000))[:500_000])
        _, complaints = receiver.communicate()
    assert receiver.returncode == 1
    assert {"damaged": "passwd is damaged", "cut off": "IncompleteFrameError"}[how] in complaints
    assert list(tmp_path.iterdir()) == []


# --- processes that share a port ------------------------------------------------------------------


def test_workers_share_a_port_and_their_clients() -> None:
    with running(EXAMPLES / "workers_server.py", "0", "2") as server:
        port = printed_port(server)
        with running(EXAMPLES / "workers_client.py", port) as client:
            lines = finish(client).splitlines()
        assert len(lines) == 8
        for number, line in enumerate(lines):
            assert re.fullmatch(rf"received b'HELLO {number} by worker [12]'", line)
        server.terminate()
        assert finish(server) == "every worker has ended\n"


def test_workers_that_are_told_to_end_answer_what_has_arrived() -> None:
    with running(EXAMPLES / "workers_server.py", "0", "2") as server:
        address = ("127.0.0.1", int(printed_port(server)))
        with contextlib.ExitStack() as stack:
            conns = [stack.enter_context(framecodec.connect(address, timeout=10)) for _ in range(6)]
            for conn in conns:
                conn.send(b"hello")
                assert conn.recv().startswith(b"HELLO by worker")
            for conn in conns:
                conn.send_many([b"%d" % number for number in range(1000)])
            server.terminate()
            for conn in conns:
                replies = [int(reply.split()[0]) for reply in conn]  # up to the clean end
                assert replies == list(range(1000))
        assert finish(server) == "every worker has ended\n"


def test_workers_do_not_outlive_their_parent() -> None:
    with running(EXAMPLES / "workers_server.py", "0", "2") as server:
        address = ("127.0.0.1", int(printed_port(server)))
        with framecodec.connect(address, timeout=20) as conn:
            conn.send(b"hello")
            assert conn.recv().startswith(b"HELLO by worker")
            server.kill()
            assert list(conn) == []  # the worker ends the connection
    for _ in range(2000):
        try:
            framecodec.connect(address, timeout=20).close()
        except ConnectionError:
            return
        time.sleep(0.01)
    raise AssertionError("a process still listens")


# --- in an event loop -----------------------------------------------------------------------------


def test_a_request_without_a_response_is_asked_again_over_a_new_connection() -> None:
    with running(EXAMPLES / "asyncio_request_server.py", "0") as server:
        port = printed_port(server)
        with running(EXAMPLES / "asyncio_request_client.py", port) as client:
            lines = finish(client).splitlines()
    attempts = lines.count("again, after TimeoutError")  # more on a machine that is busy
    assert lines[0] == "again, after TimeoutError"
    assert [line for line in lines if not line.startswith("again")] == [
        "received b'HELLO'",
        "received b'BYEBYE'",
    ]
    assert len(lines) == attempts + 2


def test_what_one_says_in_the_asyncio_chat_all_others_hear_in_order() -> None:
    chat_client = EXAMPLES / "asyncio_chat_client.py"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(EXAMPLES / "asyncio_chat_server.py", "0"))
        port = printed_port(server)
        clients = []
        for number in (1, 2, 3):
            client = stack.enter_context(running(chat_client, port, typed=True))
            assert heard(client) == f"they say there are {number} here"
            clients.append(client)
        for number in range(100):
            say(clients[0], f"你好 {number}")
        for client in clients[1:]:
            assert [heard(client) for _ in range(100)] == [f"they say 你好 {n}" for n in range(100)]
        say(clients[2], "goodbye")
        assert [heard(client) for client in clients[:2]] == ["they say goodbye"] * 2
        for client in reversed(clients):  # no client gets its own lines, or any others
            client.stdin.close()
            client.stdin = None
            assert finish(client) == ""
        assert server.poll() is None


def test_the_asyncio_chat_client_says_what_is_in_a_file(tmp_path: Path) -> None:
    lines = [b"line %d" % number for number in range(1000)]
    (tmp_path / "lines").write_bytes(b"\n".join(lines))
    with running(EXAMPLES / "asyncio_chat_server.py", "0") as server:
        port = printed_port(server)
        with framecodec.connect(("127.0.0.1", int(port)), timeout=20) as member:
            assert member.recv() == b"there are 1 here"
            with (tmp_path / "lines").open() as file:
                heard_there = fed(file.fileno(), "asyncio_chat_client.py", port)
            assert heard_there == "they say there are 2 here\n"
            assert [member.recv() for _ in lines] == lines


def test_the_asyncio_chat_client_ends_at_once_without_an_input() -> None:
    with (
        running(EXAMPLES / "asyncio_chat_server.py", "0") as server,
        running(EXAMPLES / "asyncio_chat_client.py", printed_port(server)) as client,
    ):
        assert finish(client) == "they say there are 1 here\n"


def test_the_asyncio_chat_client_leaves_its_input_blocking() -> None:
    # A terminal that is left non-blocking is so for the shell, too. It is the same with a pipe.
    with running(EXAMPLES / "asyncio_chat_server.py", "0") as server:
        reading, writing = os.pipe()
        os.close(writing)
        try:
            fed(reading, "asyncio_chat_client.py", printed_port(server))
            assert os.get_blocking(reading)
        finally:
            os.close(reading)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("how", ["the server goes", "Ctrl-C"])
def test_the_asyncio_chat_client_ends_without_another_line(how: str) -> None:
    with running(EXAMPLES / "asyncio_chat_server.py", "0") as server:
        port = printed_port(server)
        with running(EXAMPLES / "asyncio_chat_client.py", port, typed=True) as client:
            assert heard(client) == "they say there are 1 here"
            if how == "Ctrl-C":
                assert interrupted(client) == ""
            else:
                server.kill()
                client.wait()  # its input is still open
                assert finish(client) == ""


def test_a_member_of_the_asyncio_chat_who_does_not_read_is_dropped() -> None:
    with running(EXAMPLES / "asyncio_chat_server.py", "0") as server:
        address = ("127.0.0.1", int(printed_port(server)))
        with (
            framecodec.connect(address, timeout=20) as deaf,
            framecodec.connect(address, timeout=20) as speaker,
            framecodec.connect(address, timeout=20) as lively,
        ):
            greetings = [deaf.recv()[:9], speaker.recv()[:9], lively.recv()[:9]]
            assert greetings == [b"there are"] * 3
            for _ in range(50):  # 50 MB: more than the system buffers
                speaker.send(bytes(1_000_000))
                assert len(lively.recv()) == 1_000_000
            received = 0
            with contextlib.suppress(framecodec.IncompleteFrameError, ConnectionError):
                for _ in deaf:
                    received += 1
            assert received < 50


@pytest.mark.parametrize("size", [0, 1, 5_000_001])
def test_a_file_arrives_as_it_was_in_pieces(size: int, tmp_path: Path) -> None:
    source, folder = tmp_path / "数据.bin", tmp_path / "arrived"
    source.write_bytes(random.Random(size).randbytes(size))
    folder.mkdir()
    with running(EXAMPLES / "asyncio_files_server.py", "0", folder) as server:
        port = printed_port(server)
        with running(EXAMPLES / "asyncio_files_client.py", source, port) as client:
            lines = finish(client).split("\n")
    assert lines[-2:] == ["the receiver says it is whole", ""]
    assert not size or lines[-3] == f"sent {size} of {size} bytes, 100%"
    assert [path.name for path in folder.iterdir()] == ["数据.bin"]
    assert (folder / "数据.bin").read_bytes() == source.read_bytes()
    # The mode is a new file's, as the umask has it.
    assert (folder / "数据.bin").stat().st_mode == source.stat().st_mode


def test_a_file_in_pieces_that_is_not_as_it_was_is_not_kept(tmp_path: Path) -> None:
    with running(EXAMPLES / "asyncio_files_server.py", "0", tmp_path) as server:
        address = ("127.0.0.1", int(printed_port(server)))
        with framecodec.connect(address, timeout=10) as conn:
            conn.send_many([b"../name", b"8", b"the file", hashlib.sha256(b"another").digest()])
            assert conn.recv() == b"it is damaged"
            assert list(conn) == []  # the server has closed: it is done with the file
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("clients", [0, 5])
def test_an_asyncio_server_that_is_told_to_end_answers_what_has_arrived(clients: int) -> None:
    with running(EXAMPLES / "asyncio_shutdown_server.py", "0") as server:
        address = ("127.0.0.1", int(printed_port(server)))
        with contextlib.ExitStack() as stack:
            conns = [
                stack.enter_context(framecodec.connect(address, timeout=10)) for _ in range(clients)
            ]
            for conn in conns:
                conn.send(b"hello")
                assert conn.recv() == b"HELLO"
            for conn in conns:
                conn.send_many([b"number %d" % number for number in range(1000)])
            server.terminate()
            for conn in conns:
                assert list(conn) == [b"NUMBER %d" % number for number in range(1000)]
        assert finish(server) == "every connection has ended\n"


# --- all ------------------------------------------------------------------------------------------


def test_every_example_is_run_here() -> None:
    names = {re.sub(r"(_server|_client)?\.py$", "", name) for name in programs()}
    assert names == {*OUTPUT, *OUTPUT_OF_CLIENTS, *OTHERS}


@pytest.mark.parametrize("name", sorted(programs()))
def test_an_example_says_at_its_top_how_it_is_run(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((EXAMPLES / name).read_text(encoding="utf-8")))
    assert docstring is not None
    assert f"python examples/{name} " in docstring
    commands = re.findall(r"python examples/(\w+\.py)|\(start (\w+\.py) first\)", docstring)
    assert len(commands) == 2
    assert {*map("".join, commands)} <= programs()


def test_the_index_has_every_example() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert {*re.findall(r"`(\w+\.py)`", index)} == programs()


# --- programs to start from -----------------------------------------------------------------------


def test_requests_in_flight_survive_a_broken_connection() -> None:
    with running(EXAMPLES / "pipelined_server.py", "0") as server:
        port = printed_port(server)
        done = subprocess.run(
            [sys.executable, EXAMPLES / "pipelined_client.py", port],
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=True,
        )
    assert done.stdout == "328350 after more than one connection: True\n"


def test_the_file_server_sends_files_of_its_directory_over_tls(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "authority"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "certificate"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key"))
    folder = tmp_path / "files"
    folder.mkdir()
    data = os.urandom(3_000_000)
    (folder / "data").write_bytes(data)
    server_program = EXAMPLES / "tls_files_server.py", tmp_path / "certificate", tmp_path / "key"
    with running(*server_program, folder, "0") as server:
        port = printed_port(server)
        client_program = EXAMPLES / "tls_files_client.py", tmp_path / "authority"
        with running(*client_program, "data", port) as client:
            digest = hashlib.sha256(data).hexdigest()
            assert finish(client) == f"3000000 bytes, SHA-256 {digest}\n"
        with running(*client_program, "../key", port) as client:
            assert client.communicate() == ("", "no such file\n")


def test_the_proxy_passes_every_byte_on_and_prints_the_frames() -> None:
    codec = framecodec.Codec.uint(4)
    sent = codec.encode_many([b"one", b"two"]) + b"\xff\xff\xff\xffbad" + b"more"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = str(listener.getsockname()[1])
        with running(EXAMPLES / "logging_proxy.py", "0", upstream) as proxy:
            address = "127.0.0.1", int(printed_port(proxy))
            with socket.create_connection(address, 10) as client:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                server, _ = listener.accept()
                with server:
                    server.settimeout(10)
                    assert b"".join(iter(lambda: server.recv(1000), b"")) == sent
                    server.sendall(codec.encode(b"answer"))
                assert b"".join(iter(lambda: client.recv(1000), b"")) == codec.encode(b"answer")
            lines = [heard(proxy) for _ in range(4)]
    assert lines[:2] == [r"> b'\x00\x00\x00\x03one'", r"> b'\x00\x00\x00\x03two'"]
    assert lines[2].startswith("> bad: message too large: 4294967295 bytes")
    assert lines[3] == r"< b'\x00\x00\x00\x06answer'"


LANGUAGE_SERVER = """
import sys
from framecodec import FramePipe, formats

conn = FramePipe(sys.stdin.buffer, sys.stdout.buffer, codec=formats.lsp.as_json())
for message in conn:
    answer = {"jsonrpc": "2.0", "id": message.get("id"), "result": None}
    if message["method"] == "initialize":
        conn.send({"jsonrpc": "2.0", "method": "window/logMessage", "params": {}})
        conn.send({"jsonrpc": "2.0", "id": "a", "method": "client/registerCapability"})
        assert conn.recv()["error"]["code"] == -32601
        answer["result"] = {"capabilities": {"hoverProvider": True}, "serverInfo": {"name": "it"}}
    if message["method"] == "exit":
        sys.exit(0)
    if "id" in message:
        conn.send(answer)
"""


def test_the_language_client_talks_to_a_server_over_its_pipes(tmp_path: Path) -> None:
    server = tmp_path / "server.py"
    server.write_text(LANGUAGE_SERVER)
    with running(EXAMPLES / "language_client.py", sys.executable, server) as client:
        assert finish(client) == "server: it\nknows hover: True\nexit status: 0\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals")
def test_the_serial_device_is_read_through_noise() -> None:
    codec = framecodec.Codec.uint(1, magic=b"\xaa\x55", check=framecodec.Check("crc16-modbus", 2))
    frame = codec.encode(b"21.5")
    wrong = frame[:4] + b"?" + frame[5:]
    device, line = os.openpty()
    try:
        with running(EXAMPLES / "serial_device.py", os.ttyname(line), "3") as reader:
            start = codec.encode(b"start")
            got = b""
            while len(got) < len(start):
                got += os.read(device, 100)
            assert got == start
            os.write(device, b"noise" + frame + wrong + frame + frame[:5] + frame)
            output = finish(reader)
    finally:
        os.close(device)
        os.close(line)
    assert output.count("reading: 21.5\n") == 3
    assert "discarded: ChecksumError\n" in output


def test_the_server_of_gevent_serves_several_clients_at_a_time() -> None:
    pytest.importorskip("gevent")
    with running(EXAMPLES / "gevent_server.py", "0") as server:
        address = "127.0.0.1", int(printed_port(server))
        with (
            framecodec.connect(address, timeout=10) as idle,
            framecodec.connect(address, timeout=10) as lively,
        ):
            for conn in (lively, idle, lively):
                conn.send(b"hello")
                assert conn.recv() == b"hello"
