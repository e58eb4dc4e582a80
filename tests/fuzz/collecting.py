"""Call a splitter from garbage collections inside its own calls.

    python -m tests.fuzz collecting

A garbage collection may begin at any allocation of a container (Python 3.11), or between two
instructions of any Python function (later). It runs finalizers and `gc.callbacks`, which may be
anything: here they call what a splitter has. Each call, inside or outside, must do its work or
raise a clear error.

The streams have one byte only, so that it does not matter which call's bytes came first: what was
taken must be what all calls together took.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from framecodec import Check, Codec

__all__ = ["all_cases", "run_case"]

ALL = slice(None)
MOST = 20  # collections inside a call that act
BYTE = b"a"
VALUE = BYTE[0]  # 97: the length that the byte says


def parse(view: memoryview) -> tuple[int, int]:
    return 1, VALUE


def parse_late(view: memoryview) -> tuple[int, int] | None:
    return (1, VALUE) if len(view) >= 20 else None


def build(message: memoryview) -> bytes:
    return BYTE


class SometimesRight:
    """A check that every third frame does not pass."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, data: Any) -> int:
        self.count += 1
        return VALUE if self.count % 3 else 0


CODECS = {
    "one byte": Codec.uint(1),
    "three bytes": Codec.uint(3),  # frames of 6 MiB
    "three bytes and a trailer": Codec.uint(3, trailer=BYTE * 5),
    "lead": Codec.uint(1, length_offset=3, magic=BYTE),
    "varint": Codec.varint(trailer=BYTE),
    "special": Codec.uint(1, specials={VALUE: None}),
    "small limit": Codec.uint(1, max_message_size=50),
    "custom": Codec.custom(parse, build),
    "custom, late": Codec.custom(parse_late, build, trailer=BYTE),
    "check": Codec.uint(1, check=Check(lambda data: VALUE, 1)),
    "least size": Codec.uint(1, magic=BYTE, min_message_size=VALUE),
    "delimiter": Codec.delimiter(BYTE * 2),
    "choice": Codec.choice({VALUE: Codec.uint(1), 0: Codec.uint(4)}),
    "joined": Codec.joined(
        Codec.uint(1, length_offset=1), last=(0, 0xFF, VALUE), strip=1, fragment_size=VALUE
    ),
    "check, sometimes": Codec.uint(1, magic=BYTE, check=Check(SometimesRight(), 1)),
}
# Of these a splitter with more options is called, too.
WITH_OPTIONS = ("one byte", "lead", "check", "least size", "delimiter", "choice", "joined")
OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "one": {"one_at_a_time": True},
    "keep": {"keep_headers": True, "stream_offset": 2**40},
    "resync": {"on_invalid": "resync"},
}

FED = {"at the start": 0, "in a message": 50, "in a large message": 300_000}
SIZES = (1, 60, 5000, 100_000)


class World:
    """A splitter, and what all calls passed to it and got from it."""

    def __init__(
        self, engine: ModuleType, codec: Codec, raw: bool, skip: bool, option: str
    ) -> None:
        options = OPTIONS[option] | {"on_oversize": "skip" if skip else "raise"}
        self.codec = codec
        self.start = options.get("stream_offset", 0)
        self.splitter = engine.Splitter(codec, raw=raw, **options)
        self.taken = 0
        self.messages: list[Any] = []
        self.ended = False
        self.detached: bytes | None = None
        self.cleared: list[BaseException | None] = []
        self.kept: list[Any] = []

    def attempt(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except (RuntimeError, ValueError) as error:  # in use, detached, nothing given
            known = ("in use", "detached", "get_buffer", "switch")
            if not any(text in str(error) for text in known):
                raise
        except EOFError as error:
            # A switch that a collection calls may clear the error before it is seen here.
            if error is not self.splitter.error and error not in self.cleared:
                raise
        return None

    def feed(self, size: int) -> None:
        self.took(size, self.attempt(self.splitter.feed, BYTE * size))

    def feed_view(self, size: int) -> None:
        self.took(size, self.attempt(self.splitter.feed, bytearray(BYTE * size)))

    def took(self, size: int, messages: list[Any] | None) -> None:
        if messages is not None:
            self.taken += size
            self.messages += messages

    def get(self, method: str) -> memoryview | None:
        view: memoryview | None = self.attempt(getattr(self.splitter, method), 70_000)
        if view is not None:
            assert len(view) > 0
            # Nothing here makes a container, which would let a collection come between.
            try:  # noqa: SIM105
                view[ALL] = BYTE * len(view)
            except ValueError:  # withdrawn already
                pass
        return view

    def update(self, size: int) -> None:
        self.took(size, self.attempt(self.splitter.buffer_updated, size))

    def read(self) -> None:
        splitter = self.splitter
        assert splitter.pending >= 0
        assert splitter.bytes_needed >= 1
        assert splitter.stream_offset >= 0
        assert splitter.skipped >= 0
        assert not splitter.pending_header.strip(BYTE)
        assert splitter.error is None or isinstance(splitter.error, EOFError)

    def eof(self) -> None:
        self.attempt(self.splitter.feed_eof)

    def switch(self) -> None:
        error = self.splitter.error
        messages = self.attempt(self.splitter.switch, self.codec)
        self.took(0, messages)
        if messages is not None:
            self.cleared.append(error)

    def detach(self) -> None:
        unread = self.attempt(self.splitter.detach)
        if unread is not None:
            self.detached = unread


ACTIONS: dict[str, Callable[[World], None]] = {
    "feed": lambda world: world.feed(3),
    "feed much": lambda world: world.feed_view(150_000),
    "get_buffer": lambda world: world.kept.append(world.get("get_buffer")),
    "get_room": lambda world: world.kept.append(world.get("get_room")),
    "buffer_updated": lambda world: world.update(2),
    "get_room, buffer_updated": lambda world: (world.get("get_room"), world.update(5))[0],
    "feed_eof": World.eof,
    "detach": World.detach,
    "switch": World.switch,
    "read": World.read,
}


def call_feed(world: World, size: int) -> Callable[[], None]:
    data = BYTE * size
    return lambda: world.took(size, world.attempt(world.splitter.feed, data))


def call_feed_view(world: World, size: int) -> Callable[[], None]:
    data = memoryview(BYTE * size)
    return lambda: world.took(size, world.attempt(world.splitter.feed, data))


def call_get(method: str) -> Callable[[World, int], Callable[[], None]]:
    return lambda world, size: lambda: world.kept.append(world.get(method))


def call_update(method: str) -> Callable[[World, int], Callable[[], None]]:
    def prepare(world: World, size: int) -> Callable[[], None]:
        view = world.get(method)
        assert view is not None
        count = min(size, len(view))
        del view
        return lambda: world.update(count)

    return prepare


CALLS: dict[str, Callable[[World, int], Callable[[], None]]] = {
    "feed": call_feed,
    "feed of a view": call_feed_view,
    "get_buffer": call_get("get_buffer"),
    "get_room": call_get("get_room"),
    "buffer_updated after get_buffer": call_update("get_buffer"),
    "buffer_updated after get_room": call_update("get_room"),
    "feed_eof": lambda world, size: world.eof,
    "detach": lambda world, size: world.detach,
    "switch": lambda world, size: world.switch,
}


class Garbage:
    """A reference cycle that acts when it is collected."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.me, self.act = self, act

    def __del__(self) -> None:
        self.act()


Case = tuple[str, str, str, int, str, bool, bool, str]


def all_cases() -> Iterator[Case]:
    for codec in CODECS:
        for fed in FED:
            for call in CALLS:
                for size in SIZES if "feed" in call or "updated" in call else SIZES[:1]:
                    if fed == "in a large message" and codec not in (
                        "three bytes",
                        "three bytes and a trailer",
                    ):
                        continue
                    for action in ACTIONS:
                        if call.startswith("get_") and action == "buffer_updated":
                            continue  # of memory that the caller has not filled yet
                        if codec == "special" and (action == "feed much" or size > 5000):
                            continue  # each byte is a message: they would take minutes
                        if codec == "check, sometimes":
                            yield codec, fed, call, size, action, size == 60, False, "resync"
                            continue
                        yield codec, fed, call, size, action, size == 60, size == 5000, ""
                        if codec not in WITH_OPTIONS or size > 5000:
                            continue
                        for option in ("one", "keep"):
                            yield codec, fed, call, size, action, size == 60, False, option


def run_case(engine: ModuleType, case: Case) -> int:
    """Run a case for several thresholds of the collector, by callbacks and by finalizers.

    Returns:
        How many collections acted.
    """
    acted = 0
    for by_finalizer in (False, True):
        for threshold in (1, 2, 3, 5, 8):
            acted += _run(engine, case, threshold, by_finalizer)
    return acted


def _run(engine: ModuleType, case: Case, threshold: int, by_finalizer: bool) -> int:
    codec, fed, call, size, action, raw, skip, option = case
    world = World(engine, CODECS[codec], raw, skip or codec == "small limit", option)
    world.feed(FED[fed])
    run = CALLS[call](world, size)
    act = ACTIONS[action]
    errors: list[BaseException] = []
    before = gc.get_threshold()
    acted = 0
    inside = False

    def act_now() -> None:
        nonlocal acted, inside
        if inside:
            return
        if acted >= MOST:
            gc.set_threshold(*before)
            return
        inside = True
        try:
            acted += 1
            act(world)
            world.read()
        except BaseException as error:  # a callback's would be printed and forgotten
            errors.append(error)
        finally:
            inside = False

    def on_collection(phase: str, info: dict[str, int]) -> None:
        if not by_finalizer:
            act_now()
        elif phase == "start" and acted <= MOST:
            Garbage(act_now)

    gc.collect()
    gc.callbacks.append(on_collection)
    gc.set_threshold(threshold)
    try:
        run()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(on_collection)
    if errors:
        raise errors[0]
    _check(world, CODECS[codec], raw, skip or codec == "small limit")
    return acted


def _check(world: World, codec: Codec, raw: bool, skip: bool) -> None:
    """Check that the splitter took all bytes of the successful calls, each once."""
    splitter = world.splitter
    taken, offset = world.taken, splitter.stream_offset - world.start
    if world.detached is None:
        assert offset + splitter.pending == taken, f"took {offset + splitter.pending} of {taken}"
        if splitter.error is None:
            world.feed(200)
            taken = world.taken
            offset = splitter.stream_offset - world.start
            assert offset + splitter.pending == taken
        world.detach()
    assert world.detached is not None
    assert not world.detached.strip(BYTE)
    delivered = splitter.discarded
    has = codec.parameters
    owned = _owned(codec)
    for message in world.messages:
        if message is None:
            delivered += 1
            continue
        assert not message.strip(BYTE)
        delivered += len(message) + (0 if raw else owned)
    if not (skip and has["max_message_size"] == 50):
        assert delivered == offset, f"delivered {delivered} bytes of {offset}"
        assert len(world.detached) == taken - offset


def _owned(codec: Codec) -> int:
    """Return how many bytes of each frame are not in its message."""
    has = codec.parameters
    if codec.kind == "delimiter":
        return len(has["end"])
    if codec.kind in ("choice", "joined"):
        return 2 if codec.kind == "joined" else 1
    header = 3 if has.get("width") == 3 else 1
    check = 0 if has["check"] is None else int(has["check"].width)
    return header + check + len(has["trailer"]) + len(has["magic"])


def main(arguments: list[str]) -> int:
    import argparse

    from tests.fuzz.orders import load_engines
    from tests.fuzz.workers import Failure, run_cases
    from tests.helpers.engines import ENGINES

    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz collecting", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one")
    parser.add_argument("--every", type=int, default=1, help="run every Nth case only")
    parser.add_argument("--case", type=int, help="only this one, in this process")
    options = parser.parse_args(arguments)
    cases = list(all_cases())[:: options.every]
    bad = 0
    for name in options.engine or ENGINES:
        (engine,) = load_engines([name])
        gc.collect()
        gc.freeze()
        if options.case is not None:
            print(cases[options.case], run_case(engine, cases[options.case]))
            continue
        shown = 0

        def show(failure: Failure, name: str = name) -> None:
            nonlocal shown
            shown += 1
            if shown <= 8:
                print(f"{name} case {failure.case} {cases[failure.case]}: {failure.reason[:300]}")

        def run(number: int, engine: ModuleType = engine) -> tuple[int, int]:
            return run_case(engine, cases[number]), 0

        done, failures, (acted, _) = run_cases(
            run, first=0, count=len(cases), most_failures=10**6, report=show
        )
        print(
            f"{name}: {done} cases, {acted} collections called in (Python "
            f"{sys.version_info[0]}.{sys.version_info[1]}): {len(failures)} failed"
        )
        bad += len(failures)
    return 1 if bad else 0
