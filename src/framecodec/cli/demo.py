"""``framecodec demo``: the sticky packet and its cure, on real sockets.

Each step is a function that does an experiment over TCP on loopback and returns its `Outcome`:
lines to read, and the claims that must be true. The demo fails if a claim is false.

The demo always ends: every socket has a time-out, every thread is joined, and the first step that
times out is the last one.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import struct
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import ACCELERATED, Codec, FrameError, InvalidFrameError, MessageTooLargeError
from .._splitter_py import Splitter as PythonSplitter
from ..sockets import FrameSocket, connect
from ..splitter import Splitter

__all__ = ["STEPS", "Outcome", "add_commands", "run"]

TIMEOUT = 3.0  # seconds, of each socket operation
PAUSE = 0.1  # seconds that a client waits until all sent bytes have arrived
MEASURED_TIME = 0.3  # seconds, for each engine
MEMORY_LIMIT = 1024 * 1024  # bytes that a false length may cost; most are the receive buffer

FIRST, SECOND = b"hello", b"byebye"
LARGE_SIZE = 1_000_000
SMALL_BUFFER = 64 * 1024  # bytes of the kernel's buffer, too few for a whole megabyte

ASCII4 = Codec.digits(4)
STRUCT_I = Codec.struct("i")
UINT4 = Codec.uint(4)

LONGEST_LINE = 96  # characters; a terminal may have less
_HANGING: dict[str, Any] = {
    "subsequent_indent": " " * 13,
    "break_long_words": False,
    "break_on_hyphens": False,
}

Address = tuple[str, int]


@dataclass(frozen=True)
class Outcome:
    """The result of a step.

    Attributes:
        lines: What was sent, what arrived and why: pairs of a label and a text.
        claims: The statements of the step, and whether each is true.
    """

    lines: tuple[tuple[str, str], ...]
    claims: dict[str, bool]


# --------------------------------------------------------------------------------------------------
# The steps
# --------------------------------------------------------------------------------------------------


def sticky_packet() -> Outcome:
    """Read two small messages without framing."""

    def serve(conn: socket.socket) -> None:
        conn.sendall(FIRST)
        conn.sendall(SECOND)

    with _serving(serve) as address, socket.create_connection(address, TIMEOUT) as client:
        time.sleep(PAUSE)
        first = client.recv(5)
        second = client.recv(4)
    return Outcome(
        lines=(
            ("sent", f"sendall({FIRST!r}), sendall({SECOND!r})"),
            ("arrived", f"{PAUSE} s later recv(5) = {first!r}, recv(4) = {second!r}"),
            (
                "why",
                "TCP carries a stream of bytes without boundaries between messages: recv(4) takes "
                "the next four bytes of the stream, and leaves the rest of the message unread.",
            ),
        ),
        claims={
            "the first recv(5) gives b'hello'": first == b"hello",
            "the recv(4) after it gives b'byeb'": second == b"byeb",
        },
    )


def partial_packet() -> Outcome:
    """Read one large message without framing, then with it."""
    message = bytes(range(250)) * (LARGE_SIZE // 250)
    waiting, read_once = threading.Event(), threading.Event()
    taken = 0

    def serve(conn: socket.socket) -> None:
        nonlocal taken
        conn.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while taken < len(message):
                taken += conn.send(message[taken : taken + SMALL_BUFFER])
        waiting.set()
        read_once.wait(TIMEOUT)
        conn.settimeout(TIMEOUT)
        conn.sendall(message[taken:])

    with _serving(serve) as address, _connect_with_small_buffer(address) as client:
        waiting.wait(TIMEOUT)
        first = client.recv(len(message))
        read_once.set()
        received, calls = _recv_all(client, len(message))

    def serve_frame(conn: socket.socket) -> None:
        FrameSocket(conn, UINT4).send(message)

    with _serving(serve_frame) as address, connect(address, UINT4, timeout=TIMEOUT) as frames:
        whole = frames.recv()
    return Outcome(
        lines=(
            (
                "sent",
                f"one message of {len(message):,} bytes, through socket buffers of "
                f"{SMALL_BUFFER:,}",
            ),
            (
                "arrived",
                f"recv({len(message)}) = {len(first):,} bytes; it took {calls} more calls for the "
                f"other {len(received):,}",
            ),
            (
                "why",
                f"the kernel took {taken:,} bytes, then the sender had to wait for the reader; "
                "recv(n) returns the bytes that have arrived, at most n.",
            ),
            (
                "cured",
                f"with a 4-byte length before the message, one FrameSocket.recv() = "
                f"{len(whole):,} bytes",
            ),
        ),
        claims={
            "one recv brings only a part": 0 < len(first) < len(message),
            "the parts together are the message": first + received == message,
            "FrameSocket.recv() brings the whole message": whole == message,
        },
    )


def ascii_length() -> Outcome:
    """Frame the messages with a length of four ASCII digits."""
    return _framed(
        ASCII4,
        wire=b"0005hello0006byebye",
        header="four ASCII digits",
    )


def struct_length() -> Outcome:
    """Frame the messages with a length that `struct.pack` makes."""
    return _framed(
        STRUCT_I,
        wire=struct.pack("i", 5) + b"hello" + struct.pack("i", 6) + b"byebye",
        header='the bytes of struct.pack("i", n)',
    )


def _framed(codec: Codec[Any], wire: bytes, header: str) -> Outcome:
    """Send the two messages of the first step with their lengths before them."""

    def serve(conn: socket.socket) -> None:
        frames = FrameSocket(conn, codec)
        frames.send(FIRST)
        frames.send(SECOND)

    with _serving(serve) as address, socket.create_connection(address, TIMEOUT) as client:
        on_the_wire, _ = _recv_all(client, len(wire) + 1)
    with _serving(serve) as address, connect(address, codec, timeout=TIMEOUT) as frames:
        time.sleep(PAUSE)
        messages = list(frames)
    return Outcome(
        lines=(
            ("sent", f"send({FIRST!r}), send({SECOND!r}); on the wire {on_the_wire!r}"),
            ("arrived", ", ".join(f"recv() = {message!r}" for message in messages)),
            ("why", f"{header} before each message give its size, however the bytes arrive."),
        ),
        claims={
            f"the wire carries {wire!r}": on_the_wire == wire,
            "both messages arrive whole": messages == [b"hello", b"byebye"],
        },
    )


def lying_peer() -> Outcome:
    """Receive false lengths, and measure the memory that they cost."""
    too_large, large_peak = _receive_lie(UINT4, b"\xff\xff\xff\xff")
    no_number, digits_peak = _receive_lie(ASCII4, b" 1_0")
    return Outcome(
        lines=(
            ("sent", "a header that claims 4 GiB: b'\\xff\\xff\\xff\\xff'"),
            ("arrived", f"{type(too_large).__name__}: {too_large}"),
            ("memory", f"{large_peak:,} bytes at most, for the whole connection"),
            ("sent", f"the length b' 1_0' (Python's int(' 1_0') is {int(' 1_0')})"),
            ("arrived", f"{type(no_number).__name__}: {no_number}"),
            ("memory", f"{digits_peak:,} bytes at most, for the whole connection"),
            (
                "why",
                "a length is only a claim of the peer: it is checked, and it allocates nothing.",
            ),
        ),
        claims={
            "4 GiB are refused with the size and the limit": (
                isinstance(too_large, MessageTooLargeError)
                and (too_large.size, too_large.limit) == (2**32 - 1, 16 * 1024 * 1024)
            ),
            "' 1_0' is refused as a length": isinstance(no_number, InvalidFrameError),
            "both errors name the stream offset": (
                getattr(too_large, "stream_offset", None) == 0
                and getattr(no_number, "stream_offset", None) == 0
            ),
            f"less than {MEMORY_LIMIT:,} bytes are taken": (
                max(large_peak, digits_peak) < MEMORY_LIMIT
            ),
        },
    )


def _receive_lie(codec: Codec[Any], header: bytes) -> tuple[Exception | None, int]:
    """Return the error of a header without a message, and the most memory used until then.

    The peer sends nothing after the header and waits for the connection's end.
    """

    def serve(conn: socket.socket) -> None:
        conn.sendall(header)
        conn.recv(1)

    with (
        _serving(serve) as address,
        _measured_memory() as peak,
        connect(address, codec, timeout=TIMEOUT) as frames,
    ):
        try:
            frames.recv()
        except FrameError as error:
            return error, peak()
        return None, peak()


def messages_a_second() -> Outcome:
    """Measure how many messages each engine splits in a second."""
    message = b"x" * 64
    messages = [message] * 900
    chunk = UINT4.encode_many(messages)  # about the size of one recv
    engines: dict[str, Any] = {"the pure Python engine": PythonSplitter}
    if ACCELERATED:
        engines = {"the compiled engine": Splitter, **engines}

    claims = {}
    rates = []
    for name, engine in engines.items():
        feed = engine(UINT4).feed
        claims[f"{name} gives back every message"] = feed(chunk) == messages
        rates.append(f"{_split_rate(feed, chunk):,} with {name}")
    if not ACCELERATED:
        rates.append("the compiled engine is not in use here")
    return Outcome(
        lines=(("speed", f"messages of 64 bytes a second: {'; '.join(rates)}"),), claims=claims
    )


def _split_rate(feed: Callable[[bytes], list[Any]], chunk: bytes) -> int:
    """Return messages a second with two significant digits: the third one is noise."""
    count = 0
    began = now = time.perf_counter()
    while now - began < MEASURED_TIME:
        for _ in range(10):
            count += len(feed(chunk))
        now = time.perf_counter()
    return int(float(f"{count / (now - began):.1e}"))


Steps = Sequence[tuple[str, Callable[[], Outcome]]]

STEPS: Steps = (
    ("(a) the sticky packet", sticky_packet),
    ("(b) the partial packet", partial_packet),
    ("(c) a four-digit ASCII length before each message", ascii_length),
    ('(d) struct.pack("i", n) before each message', struct_length),
    ("(e) a lying peer", lying_peer),
    ("(f) how fast", messages_a_second),
)


# --------------------------------------------------------------------------------------------------
# The command
# --------------------------------------------------------------------------------------------------


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command ``demo``."""
    parser = commands.add_parser(
        "demo",
        help="the sticky packet and its cure, on real sockets",
        description="Show on real TCP sockets what goes wrong without framing, and how framing "
        "cures it. The exit status is 0 only if every step gave the expected result.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=lambda _: run())


def run(steps: Steps = STEPS) -> int:
    """Run the steps and print the result of each.

    Returns:
        The exit status: 0 if every step gave the expected result, else 1.
    """
    failed = []
    for title, step in steps:
        print(title, flush=True)
        wrong, timed_out = _run_step(step)
        for reason in wrong:
            print(f"    WRONG    {reason}")
        print(flush=True)
        if wrong:
            failed.append(title)
        if timed_out:
            print("The step timed out; the remaining steps are skipped.")
            break
    if failed:
        print(f"framecodec demo: failed steps: {', '.join(failed)}", file=sys.stderr)
        return 1
    print("Every step gave the expected result.")
    return 0


def _run_step(step: Callable[[], Outcome]) -> tuple[list[str], bool]:
    """Run a step; return the reasons why it failed, and whether it timed out."""
    try:
        outcome = step()
    except Exception as error:  # any exception is an unexpected result
        return [f"the step ended with {type(error).__name__}: {error}"], _is_timeout(error)
    width = min(shutil.get_terminal_size((LONGEST_LINE, 24)).columns, LONGEST_LINE)
    for label, text in outcome.lines:
        print(textwrap.fill(text, width, initial_indent=f"    {label:<9}", **_HANGING))
    return [f"not true: {claim}" for claim, holds in outcome.claims.items() if not holds], False


def _is_timeout(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, TimeoutError) or _is_timeout(error.__context__))


# --------------------------------------------------------------------------------------------------
# Sockets and memory
# --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _serving(serve: Callable[[socket.socket], None]) -> Iterator[Address]:
    """Serve one connection in a thread that ends with the block.

    Raises:
        Exception: An exception of `serve`.
    """
    errors: list[Exception] = []

    def accept_one() -> None:
        try:
            conn, _ = listener.accept()
            with conn:
                conn.settimeout(TIMEOUT)
                serve(conn)
        except Exception as error:
            errors.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        # Accepted connections inherit it; the system's default buffers could hold a megabyte.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        thread = threading.Thread(target=accept_one, name="framecodec demo server", daemon=True)
        thread.start()
        try:
            yield listener.getsockname()
        except EOFError:  # the server closed early; report its reason
            thread.join()
            if errors:
                raise errors[0] from None
            raise
        finally:
            thread.join()
    if errors:
        raise errors[0]


def _connect_with_small_buffer(address: Address) -> socket.socket:
    """Return a connected socket whose receive buffer is smaller than a megabyte."""
    client = socket.socket()
    try:
        client.settimeout(TIMEOUT)
        # The size of the buffer has an effect only before the connection is made.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def _recv_all(client: socket.socket, size: int) -> tuple[bytes, int]:
    """Return all bytes up to the end of the stream, and the number of `recv(size)` calls."""
    parts = []
    while part := client.recv(size):
        parts.append(part)
    return b"".join(parts), len(parts)


@contextlib.contextmanager
def _measured_memory() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the most bytes in use at once since the block began."""
    import tracemalloc  # CPython only

    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield lambda: max(0, tracemalloc.get_traced_memory()[1] - before)
    finally:
        if not was_tracing:
            tracemalloc.stop()
