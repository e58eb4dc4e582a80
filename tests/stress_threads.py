"""Stress objects that threads share, and count what went wrong; most telling without the GIL.

    python -m tests.stress_threads                      each scenario for 5 seconds
    python -m tests.stress_threads --seconds 60 --only receivers

It uses the engine that an import gives; FRAMECODEC_NO_EXTENSIONS=1 chooses the Python engine.
Each scenario runs in rounds of a fresh object. A round is wrong where a message is lost, comes
twice or is another, where a call raises what it must not, or where a thread does not end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import framecodec
from framecodec import Codec, FrameSocket, InvalidFrameError
from framecodec.asyncio import FrameStream, open_connection, start_server
from tests.helpers.fault_injection import TIMEOUT, stream_pair

THREADS = 4


class Wrong(Exception):
    """What a round found; its text names the kind."""


def together(*calls: Callable[[], None]) -> None:
    """Run calls in threads that begin at the same time; raise the first failure."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], None]) -> None:
        try:
            barrier.wait(TIMEOUT)
            call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    if failures:
        raise failures[0]
    if any(thread.is_alive() for thread in threads):
        raise Wrong("a thread that does not end")


def compare(found: list[bytes], expected: list[bytes]) -> None:
    """Raise what differs, whatever the order."""
    surplus, missing = Counter(found) - Counter(expected), Counter(expected) - Counter(found)
    if surplus:
        known = set(expected)
        raise Wrong("a message twice" if set(surplus) <= known else "a message never sent")
    if missing:
        raise Wrong("a lost message")


# --- what is shared -------------------------------------------------------------------------------


def receivers() -> int:
    """Several threads receive from one socket."""
    codec = Codec.uint(2)
    messages = [b"%d" % number for number in range(400)]
    found: list[bytes] = []
    with (
        stream_pair() as (left, right),
        FrameSocket(left, codec) as one,
        FrameSocket(right, codec) as other,
    ):
        other.settimeout(1.0)

        def receive() -> None:
            try:
                while len(found) < len(messages):
                    found.append(other.recv())
            except TimeoutError:  # another thread took what was left, or it is lost
                pass

        one.send_many(messages)
        together(*[receive] * THREADS)
    compare(found, messages)
    return len(messages)


def senders() -> int:
    """Several threads send by one socket."""
    codec = Codec.uint(2)
    sent = [[b"%d:%d" % (number, turn) for turn in range(100)] for number in range(THREADS)]
    found: list[bytes] = []
    with (
        stream_pair() as (left, right),
        FrameSocket(left, codec) as one,
        FrameSocket(right, codec) as other,
    ):
        one.settimeout(TIMEOUT)
        other.settimeout(TIMEOUT)

        def send(messages: list[bytes]) -> None:
            for message in messages:
                one.send(message)

        def receive() -> None:
            found.extend(other.recv() for _ in range(THREADS * 100))

        together(receive, *[lambda messages=each: send(messages) for each in sent])
    for number, messages in enumerate(sent):
        if [message for message in found if message.startswith(b"%d:" % number)] != messages:
            raise Wrong("the messages of one thread out of order or not once")
    return len(found)


def splitter() -> int:
    """Several threads feed whole frames to one splitter, which may refuse a second thread."""
    codec = Codec.uint(2)
    shared = codec.splitter()
    sent: list[bytes] = []
    found: list[bytes] = []

    def feed(number: int) -> None:
        for turn in range(200):
            messages = [b"%d:%d:%d" % (number, turn, each) * each for each in range(1, 5)]
            while True:
                try:
                    found.extend(shared.feed(codec.encode_many(messages)))
                except RuntimeError:
                    continue
                sent.extend(messages)
                break

    together(*[lambda number=number: feed(number) for number in range(THREADS)])
    compare(found, sent)
    return len(sent)


def encoder() -> int:
    """One thread encodes a list that the others change."""
    codec = Codec.uint(2)
    messages = [b"%d" % number * 3 for number in range(50)]
    allowed = set(messages) | {b"other"}
    ended = threading.Event()

    def encode() -> None:
        try:
            for _ in range(300):
                decoded, rest = codec.split(codec.encode_many(messages))
                if rest != len(codec.encode_many(decoded)):
                    raise Wrong("frames that do not end with a frame")
                if not set(decoded) <= allowed:
                    raise Wrong("a message never sent")
        finally:
            ended.set()

    def change() -> None:
        while not ended.is_set():
            messages[3:9] = [b"other"] * 4
            messages.append(b"other")
            del messages[40:]

    together(encode, *[change] * (THREADS - 1))
    return 300


def separate() -> int:
    """Each thread has a splitter, and all have the codec."""
    codec = Codec.uint(2)

    def work(number: int) -> None:
        own = codec.splitter()
        messages = [bytes([number]) * size for size in range(300)]
        stream = codec.encode_many(messages)
        found: list[bytes] = []
        for begin in range(0, len(stream), 777):
            found += own.feed(stream[begin : begin + 777])
        compare(found, messages)

    together(*[lambda number=number: work(number) for number in range(THREADS)])
    return THREADS * 300


def broken() -> int:
    """Several threads get the error of one splitter, and of one connection."""
    codec = Codec.uint(2, magic=b"M")
    shared = codec.splitter()
    with (
        stream_pair() as (left, right),
        FrameSocket(right, codec) as conn,
    ):
        conn.settimeout(TIMEOUT)
        left.sendall(b"not a frame")

        def fail(call: Callable[[], object]) -> None:
            try:
                call()
            except InvalidFrameError as error:
                if error.header[:1] != b"n" or error.stream_offset != 0:
                    raise Wrong("another error") from None
                traceback.format_exception(error)
            else:
                raise Wrong("no error")

        def call() -> None:
            for _ in range(100):
                with contextlib.suppress(RuntimeError):  # another thread is inside
                    fail(lambda: shared.feed(b"not a frame"))
                fail(conn.recv)

        together(*[call] * THREADS)
    return THREADS * 200


def wrong_loop() -> int:
    """Threads use a stream of an event loop that runs in another thread, which is an error.

    Most of their calls are refused. A message that was ready may go to one of them, with the Python
    engine to two threads at a time; nothing crashes, and no other bytes appear.
    """
    refusals = (RuntimeError, EOFError, ConnectionError, IndexError)
    messages = [b"%d" % number for number in range(400)]
    found: list[bytes] = []
    ready, ended = threading.Event(), threading.Event()
    shared: dict[str, Any] = {}

    async def echo(stream: FrameStream) -> None:
        async for message in stream:
            await stream.send(message)

    async def converse() -> None:
        async with (
            await start_server(echo, ("127.0.0.1", 0), codec=Codec.uint(2)) as server,
            open_connection(server.address, codec=Codec.uint(2)) as stream,
        ):
            shared.update(stream=stream, server=server)
            ready.set()
            for number, message in enumerate(messages):
                await stream.send(message)
                if number % 10 == 9:
                    await receive(stream, number + 1)

    async def receive(stream: FrameStream, count: int) -> None:
        while len(found) < count:  # a message may be received by a thread that must not
            with contextlib.suppress(TimeoutError, IndexError):
                found.append(await asyncio.wait_for(stream.recv(), 0.5))

    def run_loop() -> None:
        try:
            asyncio.run(asyncio.wait_for(converse(), TIMEOUT))
        finally:
            ready.set()
            ended.set()

    def misuse() -> None:
        ready.wait(TIMEOUT)
        stream, server = shared["stream"], shared["server"]

        # Coroutines are run by hand: asyncio of Python 3.13 mixes loops of threads without the GIL.
        def drive(coroutine: Any) -> Any:
            try:
                coroutine.send(None)
            except StopIteration as end:
                return end.value
            coroutine.close()
            raise Wrong("a call of another thread that waits")

        def send() -> None:
            drive(stream.send(b"wrong"))
            raise Wrong("a send of another thread")

        calls: tuple[Callable[[], Any], ...] = (
            lambda: found.append(drive(stream.recv())),
            lambda: found.append(drive(anext(aiter(stream)))),
            lambda: found.extend(drive(stream.recv_many())),
            send,
            lambda: drive(stream.drain()),
            lambda: drive(stream.aclose()),
            lambda: repr((stream, stream.pending_messages, stream.pending_send)),
        )
        while not ended.is_set():
            for call in calls:
                with contextlib.suppress(*refusals):
                    call()
            if len(server.connections) > 1:
                raise Wrong("a connection too many")

    together(run_loop, *[misuse] * (THREADS - 1))
    compare(found if framecodec.ACCELERATED else list(set(found) | set(messages)), messages)
    return len(found)


SCENARIOS = {
    each.__name__: each
    for each in (receivers, senders, splitter, encoder, separate, broken, wrong_loop)
}


def stress(scenario: Callable[[], int], seconds: float) -> tuple[int, int, Counter[str]]:
    """Run rounds until the time is up; return rounds, messages and what was wrong."""
    wrong: Counter[str] = Counter()
    rounds = messages = 0
    end = time.monotonic() + seconds
    while not rounds or time.monotonic() < end:
        rounds += 1
        try:
            messages += scenario()
        except Wrong as error:
            wrong[str(error)] += 1
        except Exception as error:
            wrong[f"{type(error).__name__}: {error}"] += 1
    return rounds, messages, wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress_threads", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=5.0, help="of each scenario")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    options = parser.parse_args()
    sys.setswitchinterval(1e-5)
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    engine = "compiled" if framecodec.ACCELERATED else "Python"
    print(f"Python {sys.version.split()[0]}, GIL {'on' if gil else 'off'}, {engine} engine")
    bad = False
    for name in options.only:
        rounds, messages, wrong = stress(SCENARIOS[name], options.seconds)
        bad = bad or bool(wrong)
        print(f"{name}: {rounds} rounds, {messages} messages, {dict(wrong) or 'nothing wrong'}")
    return bad


if __name__ == "__main__":
    sys.exit(main())
