"""Options of connections: each option at each place where one is made has one meaning."""

# ruff: noqa: SIM117 (a server and its clients are two levels)

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import logging
import os
import re
import socket
import socketserver
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import framecodec
from framecodec import Codec, FramePipe, FrameSocket
from framecodec.asyncio import (
    FrameProtocol,
    FrameStream,
    open_connection,
    open_pipes,
    open_process,
    open_stdio,
    open_unix_connection,
    start_server,
    start_unix_server,
)
from framecodec.socketserver import FrameRequestHandler
from tests.helpers.event_loops import LOOPS, run
from tests.helpers.servers import LOOPBACK, PATIENCE, until

CODEC = Codec.digits(2, max_message_size=20)


class Result(NamedTuple):
    """What a place received: messages, and the name of the error's class, None for a clean end."""

    messages: list[bytes]
    error: str | None


class Script(NamedTuple):
    """What the peer does: it sends bytes, then ends the stream, or waits for the other side."""

    data: bytes
    ends: bool

    def run(self, sock: socket.socket | PipePeer) -> None:
        """Play the peer until the other side has closed."""
        with sock, contextlib.suppress(OSError):
            sock.settimeout(PATIENCE)
            sock.sendall(self.data)
            if self.ends:
                sock.shutdown(socket.SHUT_WR)
            while sock.recv(1000):
                pass

    @contextlib.contextmanager
    def playing(self, connect: Callable[[], socket.socket | PipePeer]) -> Iterator[None]:
        """Play the peer in a thread."""

        def play() -> None:
            with contextlib.suppress(OSError):  # the place has refused an option
                self.run(connect())

        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        yield
        thread.join(PATIENCE)
        assert not thread.is_alive()


class PipePeer:
    """The other ends of two pipes, with what a script calls on a socket."""

    def __init__(self) -> None:
        self.near_reader, self.writer = os.pipe()
        self.reader, self.near_writer = os.pipe()

    def near_files(self) -> tuple[Any, Any]:
        """Return the files of the place: to read from, to write to."""
        return os.fdopen(self.near_reader, "rb", 0), os.fdopen(self.near_writer, "wb", 0)

    def settimeout(self, _timeout: float) -> None:
        """Do nothing: the place ends the pipes."""

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.writer, data) :]

    def shutdown(self, _how: int) -> None:
        os.close(self.writer)
        self.writer = -1

    def recv(self, size: int) -> bytes:
        return os.read(self.reader, size)

    def __enter__(self) -> PipePeer:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self.reader, self.writer):
            if descriptor >= 0:
                os.close(descriptor)


def is_clean(error: BaseException | None) -> bool:
    return error is None or type(error) is EOFError


def collect(conn: FrameSocket) -> Result:
    """Receive everything, then close."""
    messages: list[bytes] = []
    with conn:
        try:
            messages.extend(conn)
        except Exception as error:
            return Result(messages, type(error).__name__)
    return Result(messages, None)


def collect_one_by_one(conn: FrameSocket) -> Result:
    messages: list[bytes] = []
    with conn:
        try:
            while True:
                messages.append(conn.recv())
        except Exception as error:
            return Result(messages, None if is_clean(error) else type(error).__name__)


# --- the places -----------------------------------------------------------------------------------


def of_FrameSocket(script: Script, **options: Any) -> Result:
    near, far = socket.socketpair()
    with near, far:
        conn = FrameSocket(near, CODEC, **options)
        with script.playing(lambda: far):
            return collect_one_by_one(conn)


def of_FramePipe(script: Script, **options: Any) -> Result:
    peer = PipePeer()
    reader, writer = peer.near_files()
    with reader, writer, script.playing(lambda: peer):
        return collect_one_by_one(FramePipe(reader, writer, CODEC, **options))


def of_connect(script: Script, **options: Any) -> Result:
    with socket.create_server(LOOPBACK) as server, script.playing(lambda: server.accept()[0]):
        conn = framecodec.connect(*server.getsockname(), codec=CODEC, **options)
        return collect(conn)


def of_listen(script: Script, **options: Any) -> Result:
    with framecodec.listen("127.0.0.1", 0, codec=CODEC, **options) as listener:
        with script.playing(lambda: socket.create_connection(listener.address)):
            return collect(listener.accept())


class Logged(logging.Handler):
    """Collects why connections of a server have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r" ended: (\w+)", record.getMessage())
        self.errors.append(found[1] if found else record.getMessage())


@contextlib.contextmanager
def logged() -> Iterator[Logged]:
    handler = Logged()
    logger = logging.getLogger("framecodec")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


def of_serve(script: Script, **options: Any) -> Result:
    messages: list[bytes] = []
    with (
        logged() as log,
        framecodec.serve(messages_into(messages), *LOOPBACK, codec=CODEC, **options) as server,
    ):
        with script.playing(lambda: socket.create_connection(server.address)):
            pass
        until(lambda: not server.connections)
    return Result(messages, log.errors[0] if log.errors else None)


def messages_into(messages: list[bytes]) -> Callable[[FrameSocket], None]:
    def handler(conn: FrameSocket) -> None:
        for message in conn:
            messages.append(message)

    return handler


def of_serve_messages(script: Script, **options: Any) -> Result:
    messages: list[bytes] = []

    def handle(_conn: Any, received: list[bytes]) -> None:
        messages.extend(received)

    with (
        logged() as log,
        framecodec.serve_messages(handle, *LOOPBACK, codec=CODEC, **options) as server,
    ):
        with script.playing(lambda: socket.create_connection(server.address)):
            pass
        until(lambda: not server.connections)
    return Result(messages, log.errors[0] if log.errors else None)


def of_FrameRequestHandler(script: Script, **options: Any) -> Result:
    messages: list[bytes] = []
    errors: list[str] = []

    class Handler(FrameRequestHandler):
        codec = CODEC

        def handle_message(self, message: bytes) -> None:
            messages.append(message)

        def handle(self) -> None:
            try:
                super().handle()
            except Exception as error:
                errors.append(type(error).__name__)

    for name, value in options.items():
        setattr(Handler, name, value)
    with socketserver.TCPServer(LOOPBACK, Handler) as server:
        raised: list[BaseException] = []
        # handle_error() is called inside the `except` of the server.
        server.handle_error = lambda *_: raised.append(None)  # type: ignore
        with script.playing(lambda: socket.create_connection(server.server_address)):
            server.handle_request()
        if raised:
            raise ValueError("refused")
    return Result(messages, errors[0] if errors else None)


# --- the same in event loops ----------------------------------------------------------------------


async def collect_from(stream: FrameStream) -> Result:
    messages: list[bytes] = []
    async with stream:
        try:
            async for message in stream:
                messages.append(message)
        except Exception as error:
            return Result(messages, type(error).__name__)
    return Result(messages, None)


def in_a_loop(loop: str, main: Callable[[], Any]) -> Result:
    result: Result = run(loop, main())
    return result


def place_of_open_connection(loop: str, script: Script, **options: Any) -> Result:
    async def main() -> Result:
        with socket.create_server(LOOPBACK) as server:
            with script.playing(lambda: server.accept()[0]):
                stream = await open_connection(*server.getsockname(), codec=CODEC, **options)
                return await collect_from(stream)

    return in_a_loop(loop, main)


def place_of_open_unix_connection(loop: str, script: Script, **options: Any) -> Result:
    async def main() -> Result:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/s"
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path)
                server.listen()
                with script.playing(lambda: server.accept()[0]):
                    stream = await open_unix_connection(path, codec=CODEC, **options)
                    return await collect_from(stream)

    return in_a_loop(loop, main)


def place_of_open_pipes(loop: str, script: Script, **options: Any) -> Result:
    async def main() -> Result:
        peer = PipePeer()
        reader, writer = peer.near_files()
        with reader, writer, script.playing(lambda: peer):
            return await collect_from(await open_pipes(reader, writer, codec=CODEC, **options))

    return in_a_loop(loop, main)


def place_of_open_stdio(loop: str, script: Script, **options: Any) -> Result:
    async def main() -> Result:
        peer = PipePeer()
        reader, writer = peer.near_files()
        before = os.dup(0), os.dup(1)
        try:
            with reader, writer, script.playing(lambda: peer):
                os.dup2(reader.fileno(), 0)
                os.dup2(writer.fileno(), 1)
                reader.close()
                writer.close()
                try:
                    return await collect_from(await open_stdio(codec=CODEC, **options))
                finally:
                    for number, descriptor in enumerate(before):
                        os.dup2(descriptor, number)
        finally:
            for descriptor in before:
                os.close(descriptor)

    return in_a_loop(loop, main)


def place_of_open_process(loop: str, script: Script, **options: Any) -> Result:
    play = 'printf %s "$1"; [ "$2" = True ] || cat >/dev/null'
    command = ["sh", "-c", play, "sh", script.data.decode(), str(script.ends)]

    async def main() -> Result:
        process, stream = await open_process(*command, codec=CODEC, **options)
        result = await collect_from(stream)
        assert await process.wait() == 0
        return result

    return in_a_loop(loop, main)


class Receiver(FrameProtocol):
    """Keeps what it is told."""

    def __init__(self, codec: Codec, **options: Any) -> None:
        super().__init__(codec, **options)
        self.messages: list[bytes] = []
        self.ended: list[BaseException | None] = []

    def messages_received(self, messages: list[bytes]) -> None:
        self.messages.extend(messages)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.append(exc)

    def result(self) -> Result:
        """Return it, after the end."""
        (error,) = self.ended
        return Result(self.messages, None if error is None else type(error).__name__)


def place_of_connect_read_pipe(loop: str, script: Script, **options: Any) -> Result:
    async def main() -> Result:
        peer = PipePeer()
        reader, writer = peer.near_files()
        with reader, script.playing(lambda: peer), writer:
            protocol = Receiver(CODEC, **options)
            await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, reader)
            while not protocol.ended:
                await asyncio.sleep(0.002)
        return protocol.result()

    return in_a_loop(loop, main)


async def serve_one(server: Any, script: Script, sock: Callable[[], socket.socket]) -> None:
    """Let the script be a server's client."""
    thread = threading.Thread(target=lambda: script.run(sock()), daemon=True)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.002)
    while server.connections:
        await asyncio.sleep(0.002)


def place_of_start_server(loop: str, script: Script, **options: Any) -> Result:
    messages: list[bytes] = []

    async def handler(stream: FrameStream) -> None:
        async for message in stream:
            messages.append(message)

    async def main() -> Result:
        with logged() as log:
            async with start_server(handler, *LOOPBACK, codec=CODEC, **options) as server:
                await serve_one(server, script, lambda: socket.create_connection(server.address))
        return Result(messages, log.errors[0] if log.errors else None)

    return in_a_loop(loop, main)


def place_of_start_unix_server(loop: str, script: Script, **options: Any) -> Result:
    messages: list[bytes] = []

    async def handler(stream: FrameStream) -> None:
        while True:
            messages.append(await stream.recv())

    def dial_path(path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return sock

    async def main() -> Result:
        with logged() as log, tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/s"
            async with start_unix_server(handler, path, codec=CODEC, **options) as server:
                await serve_one(server, script, lambda: dial_path(path))
        return Result(messages, log.errors[0] if log.errors else None)

    return in_a_loop(loop, main)


def place_of_FrameProtocol(loop: str, script: Script, **options: Any) -> Result:
    async def main() -> Result:
        with socket.create_server(LOOPBACK) as server:
            protocol = Receiver(CODEC, **options)
            with script.playing(lambda: server.accept()[0]):
                await asyncio.get_running_loop().create_connection(
                    lambda: protocol, *server.getsockname()
                )
                while not protocol.ended:
                    await asyncio.sleep(0.002)
        return protocol.result()

    return in_a_loop(loop, main)


def in_both_loops(place: Callable[..., Result]) -> list[Callable[..., Result]]:
    """Return the place in each event loop."""
    loops = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]
    places = []
    for loop in loops:
        one = functools.partial(place, loop)
        one.__name__ = f"{place.__name__[6:]}-{loop}"  # type: ignore[attr-defined]
        places.append(one)
    return places


PLACES: list[Callable[..., Result]] = [
    of_FrameSocket,
    of_FramePipe,
    of_connect,
    of_listen,
    of_serve,
    of_serve_messages,
    of_FrameRequestHandler,
    *in_both_loops(place_of_open_connection),
    *in_both_loops(place_of_open_unix_connection),
    *in_both_loops(place_of_start_server),
    *in_both_loops(place_of_start_unix_server),
    *in_both_loops(place_of_FrameProtocol),
    *in_both_loops(place_of_open_pipes),
    *in_both_loops(place_of_open_stdio),
    *in_both_loops(place_of_open_process),
    *in_both_loops(place_of_connect_read_pipe),
]
every_place = pytest.mark.parametrize(
    "place", PLACES, ids=lambda place: place.__name__.removeprefix("of_")
)


# --- the options ----------------------------------------------------------------------------------


@every_place
def test_without_options_all_messages_arrive(place: Callable[..., Result]) -> None:
    assert place(Script(b"01a02bc", True)) == ([b"a", b"bc"], None)
    assert place(Script(b"01a02b", True)) == ([b"a"], "IncompleteFrameError")
    assert place(Script(b"01a99", True)) == ([b"a"], "MessageTooLargeError")


@every_place
def test_message_timeout_ends_a_connection_inside_a_message(place: Callable[..., Result]) -> None:
    result = place(Script(b"01a05xy", False), message_timeout=0.05)
    assert result == ([b"a"], "MessageTimeoutError")


@every_place
def test_idle_timeout_ends_a_connection_between_messages(place: Callable[..., Result]) -> None:
    assert place(Script(b"01a", False), idle_timeout=0.05) == ([b"a"], "IdleTimeoutError")


@every_place
def test_on_oversize_skip_discards_the_large_message(place: Callable[..., Result]) -> None:
    data = b"01a" + b"50" + b"x" * 50 + b"02bc"
    assert place(Script(data, True), on_oversize="skip") == ([b"a", b"bc"], None)


def splitters_resynchronise() -> bool:
    try:
        framecodec.Splitter(CODEC, on_invalid="raise")
    except TypeError:
        return False
    return True


@every_place
@pytest.mark.skipif(not splitters_resynchronise(), reason="splitters have no on_invalid")
def test_on_invalid_resync_discards_up_to_the_next_frame(
    place: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = Codec.digits(2, magic=b"#", max_message_size=20)
    monkeypatch.setattr(sys.modules[__name__], "CODEC", codec)
    data = b"#01a" + b"garbage" + b"#02bc"
    assert place(Script(data, True), on_invalid="resync") == ([b"a", b"bc"], None)
    recorder = Recorder()
    result = place(Script(data, True), on_invalid="resync", observer=recorder)
    assert result == ([b"a", b"bc"], None)
    until(lambda: recorder.events[-1][0] == "connection_closed")
    assert sorted(recorder.events[1:-1]) == [
        ("frame_discarded", "InvalidFrameError"),
        ("frame_received", 4),
        ("frame_received", 5),
    ]


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.connections: set[Any] = set()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("frame_", "connection_")):
            raise AttributeError(name)

        def record(conn: Any, *arguments: Any) -> None:
            self.connections.add(conn)
            shown = [type(one).__name__ if isinstance(one, Exception) else one for one in arguments]
            self.events.append((name, *shown))

        return record


@every_place
def test_observer_is_told_of_frames_and_of_the_connection(place: Callable[..., Result]) -> None:
    recorder = Recorder()
    assert place(Script(b"01a02bc", True), observer=recorder) == ([b"a", b"bc"], None)
    until(lambda: recorder.events[-1][0] == "connection_closed")
    assert recorder.events == [
        ("connection_opened",),
        ("frame_received", 3),
        ("frame_received", 4),
        ("connection_closed", None),
    ]
    assert len(recorder.connections) == 1


@every_place
def test_observer_is_told_of_discarded_frames_and_of_the_fault(
    place: Callable[..., Result],
) -> None:
    recorder = Recorder()
    data = b"50" + b"x" * 50 + b"02bcno"
    result = place(Script(data, True), observer=recorder, on_oversize="skip")
    assert result == ([b"bc"], "InvalidFrameError")
    until(lambda: recorder.events[-1][0] == "connection_closed")
    # One receive or several: the kernel decides.
    assert sorted(recorder.events[1:-1]) == [
        ("frame_discarded", "InvalidFrameError"),
        ("frame_discarded", "MessageTooLargeError"),
        ("frame_received", 4),
    ]
    assert recorder.events[0] == ("connection_opened",)
    assert recorder.events[-1] == ("connection_closed", "InvalidFrameError")


@every_place
def test_an_observer_that_raises_is_logged_and_harms_nothing(
    place: Callable[..., Result], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def frame_received(self, *_: Any) -> None:
            raise RuntimeError("of the observer")

    with caplog.at_level(logging.ERROR, "framecodec"):
        result = place(Script(b"01a02bc", True), observer=Failing())
    assert result.messages == [b"a", b"bc"]
    texts = {record.getMessage() for record in caplog.records}
    assert texts == {"the observer's method frame_received() failed"}


BAD_OPTIONS = [
    {"message_timeout": 0},
    {"idle_timeout": -1},
    {"on_oversize": "drop"},
]


@every_place
@pytest.mark.parametrize("options", BAD_OPTIONS, ids=lambda options: next(iter(options)))
def test_an_invalid_option_is_refused(
    place: Callable[..., Result], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be|refused"):
        place(Script(b"", True), **options)


# --- where one connection is made -----------------------------------------------------------------


@pytest.mark.parametrize("observed", [False, True])
def test_FrameSocket_takes_received_bytes_first(engine: Any, observed: bool) -> None:
    near, far = socket.socketpair()
    observer = Recorder() if observed else None
    with far, FrameSocket(near, CODEC, received=b"01a02b", observer=observer) as conn:
        conn.settimeout(PATIENCE)
        assert conn.pending_messages == 1
        far.sendall(b"c01")
        assert [conn.recv(), conn.recv()] == [b"a", b"bc"]
        assert conn.detach()[1] == b"01"
        near.close()


def test_FrameSocket_raises_what_received_bytes_hold(engine: Any) -> None:
    for received, messages in ((b"no", []), (b"01a02bcno", [b"a", b"bc"])):
        near, far = socket.socketpair()
        with far, FrameSocket(near, CODEC, received=received) as conn:
            for message in messages:
                assert conn.recv() == message
            for _ in range(2):
                with pytest.raises(framecodec.InvalidFrameError):
                    conn.recv()


def test_received_bytes_start_the_message_clock() -> None:
    near, far = socket.socketpair()
    with far, FrameSocket(near, CODEC, received=b"05a", message_timeout=0.05) as conn:
        with pytest.raises(framecodec.MessageTimeoutError):
            conn.recv()


def test_observer_is_told_of_sent_frames_when_they_are_accepted(tmp_path: Path) -> None:
    near, far = socket.socketpair()
    recorder = Recorder()
    codec = Codec.uint(4)
    with far, FrameSocket(near, codec, observer=recorder) as conn:
        conn.send(b"abc")
        conn.send_many(iter([b"", bytearray(b"x")]))
        path = tmp_path / "file"
        path.write_bytes(b"z" * 5000)
        with path.open("rb") as file:
            conn.send_file(file)
        conn.settimeout(0)
        large = b"y" * 10_000_000
        with pytest.raises(BlockingIOError) as caught:
            conn.send(large)
        assert caught.value.message_started  # type: ignore[attr-defined]
        with pytest.raises(BlockingIOError) as caught:
            conn.send(b"not accepted")
        assert not caught.value.message_started  # type: ignore[attr-defined]
        with pytest.raises(framecodec.MessageTooLargeError):
            conn.send(bytes(20_000_000))
    sizes = [event[1] for event in recorder.events if event[0] == "frame_sent"]
    assert sizes == [7, 4, 5, 5004, 10_000_004]
    assert recorder.events[-1] == ("connection_closed", None)


def test_observer_is_told_of_a_large_message_that_recv_into_takes() -> None:
    near, far = socket.socketpair()
    recorder = Recorder()
    codec = Codec.uint(4)
    data = bytes(300_000)
    with FrameSocket(near, codec, observer=recorder) as conn:
        sender = threading.Thread(target=far.sendall, args=(codec.encode(data) * 2,))
        sender.start()
        buffer = bytearray(len(data))
        assert conn.recv_into(buffer) == len(data)
        assert conn.recv() == data
        sender.join()
        far.close()
    received = [event for event in recorder.events if event[0] == "frame_received"]
    assert received == [("frame_received", 300_004)] * 2


def test_connection_closed_gets_the_error_of_a_failed_send() -> None:
    near, far = socket.socketpair()
    recorder = Recorder()
    with FrameSocket(near, CODEC, observer=recorder) as conn:
        far.close()
        with pytest.raises(BrokenPipeError):
            conn.send(b"a")
    assert recorder.events[-1] == ("connection_closed", "BrokenPipeError")


def test_a_connection_without_an_observer_has_the_usual_class() -> None:
    near, far = socket.socketpair()
    with far, FrameSocket(near, CODEC) as conn:
        assert type(conn) is FrameSocket
        assert type(conn._receiving.inbox.splitter) is framecodec.Splitter


# --- keepalive ------------------------------------------------------------------------------------


@pytest.mark.parametrize("keepalive", [None, False, True, 7])
def test_keepalive_sets_the_probes_of_tcp(keepalive: Any) -> None:
    with framecodec.listen(LOOPBACK, keepalive=keepalive) as listener:
        with framecodec.connect(listener.address, keepalive=keepalive) as one:
            with listener.accept() as other:
                for conn in (one, other):
                    on = conn.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    assert bool(on) == bool(keepalive)
                    if keepalive == 7 and hasattr(socket, "TCP_KEEPIDLE"):
                        assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7


def test_keepalive_must_be_positive() -> None:
    for make in (framecodec.listen, framecodec.connect):
        with pytest.raises(ValueError, match="keepalive must be True, or a positive number"):
            make(LOOPBACK, keepalive=-1)


# --- event loops: where one connection is made, and what is sent ----------------------------------


@LOOPS
@pytest.mark.parametrize("observed", [False, True])
def test_open_connection_takes_received_bytes_first(loop: str, observed: bool) -> None:
    async def main() -> None:
        observer = Recorder() if observed else None
        with socket.create_server(LOOPBACK) as server:
            async with open_connection(
                server.getsockname(), CODEC, received=b"01a02b", observer=observer
            ) as stream:
                assert stream.pending_messages == 1
                with server.accept()[0] as far:
                    far.sendall(b"c01d")
                    assert [await stream.recv() for _ in range(3)] == [b"a", b"bc", b"d"]
        if observer is not None:
            assert [event for event in observer.events if event[0] == "frame_received"] == [
                ("frame_received", 3),
                ("frame_received", 4),
                ("frame_received", 3),
            ]

    run(loop, main())


@pytest.mark.parametrize("observed", [False, True])
def test_FramePipe_takes_received_bytes_first(observed: bool) -> None:
    peer = PipePeer()
    observer = Recorder() if observed else None
    with (
        peer,
        FramePipe(*peer.near_files(), CODEC, received=b"01a02b", observer=observer) as conn,
    ):
        assert conn.pending_messages == 1
        peer.sendall(b"c01d")
        assert [conn.recv() for _ in range(3)] == [b"a", b"bc", b"d"]


@LOOPS
@pytest.mark.parametrize("observed", [False, True])
def test_open_pipes_takes_received_bytes_first(loop: str, observed: bool) -> None:
    async def main() -> None:
        peer = PipePeer()
        observer = Recorder() if observed else None
        options: dict[str, Any] = {"received": b"01a02b", "observer": observer}
        with peer:
            async with open_pipes(*peer.near_files(), codec=CODEC, **options) as stream:
                assert stream.pending_messages == 1
                peer.sendall(b"c01d")
                assert [await stream.recv() for _ in range(3)] == [b"a", b"bc", b"d"]

    run(loop, main())


@LOOPS
def test_FrameProtocol_delivers_received_bytes_after_connection_made(loop: str) -> None:
    async def main() -> None:
        events: list[Any] = []

        class Protocol(FrameProtocol):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                events.append("made")

            def messages_received(self, messages: list[bytes]) -> None:
                events.extend(messages)

            def connection_lost(self, exc: Any) -> None:
                events.append(type(exc))

        with socket.create_server(LOOPBACK) as server:
            await asyncio.get_running_loop().create_connection(
                lambda: Protocol(CODEC, received=b"01a02bcno"), *server.getsockname()
            )
            while len(events) < 4:
                await asyncio.sleep(0)
        assert events == ["made", b"a", b"bc", framecodec.InvalidFrameError]

    run(loop, main())


@LOOPS
def test_a_stream_s_observer_is_told_of_files_and_parts(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3_000_000))

    async def main() -> None:
        recorder = Recorder()

        async def echo(stream: FrameStream) -> None:
            async for message in stream:
                await stream.send(message)

        async with start_server(echo, *LOOPBACK, codec=Codec.uint(4)) as server:
            async with open_connection(server.address, Codec.uint(4), observer=recorder) as stream:

                async def parts() -> list[bytes]:
                    return [part async for part in stream.recv_parts()]

                with path.open("rb") as file:
                    await stream.send_file(file, 10)
                    assert await parts() == [bytes(10)]
                    receiving = asyncio.create_task(parts())
                    await stream.send_file(file, 2_000_000)
                    found = await receiving
                assert b"".join(found) == bytes(2_000_000)
                assert len(found) > 1
        for event in ("frame_sent", "frame_received"):
            sizes = [size for name, *sizes in recorder.events if name == event for size in sizes]
            assert sizes == [14, 2_000_004]

    run(loop, main())


@LOOPS
def test_a_stream_s_observer_is_told_of_sent_frames(loop: str) -> None:
    async def main() -> None:
        recorder = Recorder()
        with socket.create_server(LOOPBACK) as server:
            async with open_connection(
                server.getsockname(), Codec.uint(4), observer=recorder
            ) as stream:
                await stream.send(b"abc")
                await stream.send_many([b"", b"x"])
                await stream.send(bytearray(5000))
                with pytest.raises(framecodec.MessageTooLargeError):
                    await stream.send(bytes(20_000_000))
                sending = asyncio.create_task(stream.send(bytes(9_000_000)))
                await asyncio.sleep(0.01)
                blocked = asyncio.create_task(stream.send(b"never"))
                await asyncio.sleep(0.01)
                blocked.cancel()
                sending.cancel()
                await asyncio.gather(sending, blocked, return_exceptions=True)
                stream.transport.abort()
            assert recorder.connections == {stream}
        sizes = [event[1] for event in recorder.events if event[0] == "frame_sent"]
        assert sizes == [7, 4, 5, 5004, 9_000_004]

    run(loop, main())


@LOOPS
def test_a_server_s_observer_is_told_of_broadcasts_and_of_failed_handlers(loop: str) -> None:
    async def main() -> None:
        recorder = Recorder()

        async def handler(stream: FrameStream) -> None:
            await stream.recv()
            raise LookupError("a bug")

        async with start_server(handler, *LOOPBACK, codec=CODEC, observer=recorder) as server:
            async with open_connection(server.address, CODEC) as stream:
                while not server.connections:
                    await asyncio.sleep(0)
                assert server.broadcast(b"told") == 1
                assert await stream.recv() == b"told"
                await stream.send(b"x")
                with pytest.raises(EOFError):
                    await stream.recv()
        assert recorder.events == [
            ("connection_opened",),
            ("frame_sent", 6),
            ("frame_received", 3),
            ("connection_closed", "LookupError"),
        ]

    asyncio_run(loop, main)


def asyncio_run(loop: str, main: Callable[[], Any]) -> None:
    """Run a coroutine whose handlers may fail: the loop is told of that."""
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@LOOPS
def test_keepalive_sets_the_probes_of_tcp_in_event_loops(loop: str) -> None:
    async def main() -> None:
        options: list[int] = []

        async def handler(stream: FrameStream) -> None:
            sock = stream.get_extra_info("socket")
            options.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

        async with start_server(handler, *LOOPBACK, keepalive=7) as server:
            async with open_connection(server.address, keepalive=True) as stream:
                sock = stream.get_extra_info("socket")
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                with pytest.raises(EOFError):
                    await stream.recv()
        assert options == [1]

    run(loop, main())


# --- one message where many are expected ----------------------------------------------------------


@pytest.mark.parametrize(
    "one", [b"hello", bytearray(b"x"), memoryview(b"x"), "hello", {b"a": 1}], ids=type
)
@pytest.mark.parametrize("observed", [False, True])
def test_send_many_refuses_one_message(one: Any, observed: bool) -> None:
    observer = Recorder() if observed else None
    text = "an iterable of messages is required, not one of type .*; use send"
    near, far = socket.socketpair()
    with far, FrameSocket(near, CODEC, observer=observer) as conn:
        with pytest.raises(TypeError, match=text):
            conn.send_many(one)

    async def main() -> None:
        with socket.create_server(LOOPBACK) as server:
            async with open_connection(server.getsockname(), observer=observer) as stream:
                with pytest.raises(TypeError, match=text):
                    await stream.send_many(one)

    run("asyncio", main())
