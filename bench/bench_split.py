"""How fast is a stream split in memory?

Three ways to feed it: about 64 KiB of whole frames from one place again and again, as after a
`recv` ("hot"); a long stream as one chunk; the same stream cut into chunks of 64 KiB, 1460 bytes (a
TCP segment) and 7 bytes. The messages are dropped as soon as they are delivered. Then the other
shapes, against the plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

from . import native, remote_process, sources
from .contenders import Contender, Feed, Messages, Missing, everyone
from .contenders.ours import ThroughBuffer, attribute
from .harness import Case, Entry, Scale, expect, makers, run_in_pytest
from .sources import KIB, MIB, VARIANTS, size_name

SIZES = (16, 64, KIB, 64 * KIB, MIB)
CHUNKS = (("whole", None), ("64 KiB", 64 * KIB), ("1460 B", 1460), ("7 B", 7))
LARGE_CHUNKS = (None, 64 * KIB)
HOT = 64 * KIB
NATIVE_PROGRAMS = ("tokio", "netty")


def cases(scale: Scale) -> Iterator[Case]:
    for size in SIZES:
        yield _plain(size, "64 KiB, hot", None, HOT)
    for name, chunk_size in CHUNKS:
        for size in SIZES:
            if chunk_size == 7 and size == MIB:
                continue  # a contender that copies its pending bytes would need minutes
            total = min(scale.source, 256 * KIB) if chunk_size == 7 else scale.source
            yield _plain(size, name, chunk_size, total)
    for size in (16, 64, KIB):
        for engine in ("compiled", "Python"):
            yield _shapes(size, engine)


def test_how_fast_is_a_stream_split(benchmark, case: Case, name: str) -> None:
    run_in_pytest(benchmark, case, name)


def feed_all(feed: Feed, chunks: list[bytes], times: int) -> Messages:
    """Feed all chunks; return the messages that the last one completed. This is timed."""
    for _ in repeat(None, times):
        for chunk in chunks:
            messages = feed(chunk)
    return messages


def entry(
    name: str,
    role: str,
    make_feed: Callable[[], Feed],
    wire: Callable[[Messages], bytes],
    messages_of: Callable[[int], Messages],
    chunk_size: int | None,
) -> Entry:
    """Check that a splitter returns every message of every variant, and make its entry."""
    chunks = [sources.cut(wire(messages_of(v)), chunk_size) for v in range(VARIANTS)]
    for variant in range(VARIANTS):
        feed, got = make_feed(), []
        for chunk in chunks[variant]:
            got += feed(chunk)
        expect(got == messages_of(variant), name, "other messages than were sent")
    feed = make_feed()
    chosen = 0

    def setup(number: int, times: int) -> tuple[Feed, list[bytes], int]:
        nonlocal chosen
        chosen = number % VARIANTS
        return feed, chunks[chosen], times

    def check(last: Messages) -> None:
        right = bool(last) and last[-1] == messages_of(chosen)[-1]
        expect(right, name, "the last message is not the last that was sent")

    return Entry(name, role, setup, feed_all, check, units=len(messages_of(0)))


def _plain(size: int, chunk: str, chunk_size: int | None, total: int) -> Case:
    def messages_of(variant: int) -> Messages:
        return sources.messages(size, total, variant)

    def make(contender: Contender) -> Entry:
        return entry(
            contender.name,
            contender.role,
            contender.splitter,
            contender.wire,
            messages_of,
            chunk_size,
        )

    return Case(
        "split",
        f"split {size_name(size)}, {chunk}",
        {"size": size, "chunk": chunk},
        makers(
            "splitter",
            make,
            in_loop=(False, True),
            # ThroughBuffer copies into the buffer, as a read would; with tiny chunks the figure
            # would show nothing but these copies.
            only=lambda contender: (
                not isinstance(contender, ThroughBuffer) or chunk_size in LARGE_CHUNKS
            ),
        ),
        native={
            folder: lambda folder=folder: _native_entry(folder, size, chunk, chunk_size, total)
            for folder in NATIVE_PROGRAMS
            if chunk == "1460 B" or total == HOT
        },
    )


def _native_entry(folder: str, size: int, chunk: str, chunk_size: int | None, total: int) -> Entry:
    """Give the native program the same bytes, as a file."""
    messages = sources.messages(size, total, 0)
    path = remote_process.shared().file(
        f"native {size} {total}", lambda: everyone()["C floor"].wire(messages)
    )
    return native.entry(
        folder, f"split {{}} {chunk_size or 0}", path, len(messages), sum(map(len, messages))
    )


# One codec of each kind: its name, and how the class `Codec` makes it.
SHAPES: dict[str, Callable[[Any], Any]] = {
    "plain": lambda codec: codec.uint(4),
    "offset": lambda codec: codec.uint(4, length_offset=1),
    "adjustment": lambda codec: codec.uint(4, length_includes="frame"),
    "trailer": lambda codec: codec.uint(4, trailer=b"\n"),
    "digits": lambda codec: codec.digits(4),
    "varint": lambda codec: codec.varint(),
    "text": lambda codec: codec.text(trailer=b","),  # a netstring
    "delimiter": lambda codec: codec.delimiter(),
    "lines": lambda codec: codec.delimiter(b"\n", b"\r\n"),
    "cobs": lambda codec: codec.cobs(),
}


def _shapes(size: int, engine: str) -> Case:
    module = {"compiled": "framecodec._splitter", "Python": "framecodec._splitter_py"}[engine]

    def messages_of(variant: int) -> Messages:
        return sources.messages(size, HOT, variant)

    def without_marks(variant: int) -> Messages:
        return [m.translate(None, b"\r\n").ljust(size, b".") for m in messages_of(variant)]

    def maker(name: str) -> Callable[[], Entry]:
        def make() -> Entry:
            splitter = attribute(module, "Splitter")
            try:
                codec = SHAPES[name](attribute("framecodec", "Codec"))
            except AttributeError:  # a commit that does not have this kind
                raise Missing(f"no shape {name}") from None
            return entry(
                name,
                "floor" if name == "plain" else "ours",
                lambda: splitter(codec).feed,
                codec.encode_many,
                without_marks if name in ("delimiter", "lines") else messages_of,
                None,
            )

        return make

    return Case(
        "shapes",
        f"shapes {size_name(size)}, {engine} engine",
        {"size": size, "engine": engine},
        {name: maker(name) for name in SHAPES},
    )
