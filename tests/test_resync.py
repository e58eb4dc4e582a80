"""``on_invalid="resync"``: after a bad frame a splitter continues at the next mark."""

from __future__ import annotations

import io
import random
from types import ModuleType
from typing import Any

import pytest

from framecodec import (
    Check,
    ChecksumError,
    Codec,
    FrameError,
    FrameSocket,
    IncompleteFrameError,
    InvalidFrameError,
    _splitter_py,
)
from tests.helpers.chunking import cuts, hand_overs
from tests.helpers.fault_injection import TIMEOUT, stream_pair
from tests.helpers.reference_resync import expect_resync, is_marked
from tests.helpers.sample_codecs import CODECS, sample_messages, streams

CHECKED = Codec.uint(1, magic=b"MG", check=Check("crc32", 4))


MARKED = [name for name, codec in CODECS.items() if codec.kind != "joined" and is_marked(codec)]


def expected_outcome(codec: Codec, data: bytes, *, raw: bool = False) -> dict[str, Any]:
    """What a splitter makes of a stream that ends, by the reference, which sees all of it."""
    trace = expect_resync(codec, data, raw=raw)
    left = len(trace.unread) if trace.searching else 0  # discarded at the end
    return {
        "messages": trace.messages,
        "resyncs": trace.last.resyncs,
        "discarded": trace.last.discarded + left,
        "last": trace.bad[-1] if trace.bad else None,
        "offset": trace.last.offset + left,
        "ended": None if trace.searching else trace.error,
    }


def outcome_of(
    engine: ModuleType, codec: Codec, pieces: list[bytes], give: Any = None, **options: Any
) -> dict[str, Any]:
    splitter = engine.Splitter(codec, on_invalid="resync", **options)
    messages: list[Any] = []
    fed, ended = 0, None
    for piece in pieces:
        needed = splitter.bytes_needed
        new = give(splitter, piece) if give else splitter.feed(piece)
        if splitter.error is None and options.get("one_at_a_time"):
            while more := splitter.feed(b""):
                new += more
        fed += len(piece)
        assert not new or len(piece) >= needed
        assert splitter.stream_offset + splitter.pending == fed
        messages += new
    try:
        splitter.feed_eof()
    except FrameError as error:
        ended = type(error)
    last = splitter.last_invalid
    return {
        "messages": messages,
        "resyncs": splitter.resyncs,
        "discarded": splitter.discarded,
        "last": None if last is None else (type(last), last.stream_offset),
        "offset": splitter.stream_offset,
        "ended": ended,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", MARKED)
def test_resync_does_not_depend_on_the_chunks(engine: ModuleType, name: str) -> None:
    codec = CODECS[name]
    rng = random.Random(name)
    ways = list(hand_overs.values())
    for number, stream in enumerate(streams(codec, size=40, count=8, seed=5)):
        good = [codec.encode(message) for message in sample_messages(codec)[:3]]
        data = stream + rng.choice([b"", b"garbage", stream]) + rng.choice([b"", *good])
        expected = expected_outcome(codec, data)
        for pieces in cuts(data, count=4, seed=number):
            assert outcome_of(engine, codec, pieces, rng.choice(ways)) == expected
        pieces = [data[i : i + 1] for i in range(len(data))]
        assert outcome_of(engine, codec, pieces) == expected
        assert outcome_of(engine, codec, [data], one_at_a_time=True) == expected
        assert outcome_of(engine, codec, pieces, one_at_a_time=True) == expected
        raw = expected_outcome(codec, data, raw=True)
        assert outcome_of(engine, codec, pieces, raw=True) == raw
        assert outcome_of(engine, codec, [data], raw=True) == raw


@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize(
    "codec",
    [
        CHECKED,
        Codec.headers(check=Check("sum8", 1)),
        Codec.varint(magic=b"\0", check=Check("crc16-modbus", 2, position="front")),
    ],
)
def test_a_wrong_check_costs_one_message(engine: ModuleType, codec: Codec, where: str) -> None:
    messages = [b"first", b"middle", b"last"]
    frames = [codec.encode(message) for message in messages]
    wrong = messages.index(where.encode())
    frames[wrong] = frames[wrong].replace(messages[wrong], messages[wrong].upper())
    kept = [message for message in messages if message != where.encode()]
    for pieces in cuts(b"".join(frames), count=10):
        splitter, found = engine.Splitter(codec, on_invalid="resync"), []
        for piece in pieces:
            found += splitter.feed(piece)
        splitter.feed_eof()
        assert found == kept
        assert (splitter.resyncs, splitter.discarded) == (1, len(frames[wrong]))
        assert isinstance(splitter.last_invalid, ChecksumError)
        assert splitter.last_invalid.stream_offset == len(b"".join(frames[:wrong]))


@pytest.mark.parametrize("garbage", [b"x", b"M", b"MM", b"\xff" * 300, b"GM MX \r\n"])
def test_garbage_before_between_and_after_frames(engine: ModuleType, garbage: bytes) -> None:
    one, two = CHECKED.encode(b"one"), CHECKED.encode(b"two")
    data = garbage + one + garbage + two + garbage
    for pieces in cuts(data, count=10):
        splitter, found = engine.Splitter(CHECKED, on_invalid="resync"), []
        for piece in pieces:
            found += splitter.feed(piece)
        if garbage not in (b"M", b"MM"):  # at the end these may begin a frame
            splitter.feed_eof()
            assert splitter.discarded == 3 * len(garbage)
            assert splitter.pending == 0
        assert found == [b"one", b"two"]


def test_frames_inside_a_frame_whose_length_is_wrong_are_found(engine: ModuleType) -> None:
    inner = CHECKED.encode(b"inner")
    bad = b"MG\x14" + inner + b"0123456789"  # 20 bytes, a check that is wrong
    data = CHECKED.encode(b"a") + bad + b"...." + CHECKED.encode(b"b")
    for pieces in cuts(data, count=10):
        splitter, found = engine.Splitter(CHECKED, on_invalid="resync"), []
        for piece in pieces:
            found += splitter.feed(piece)
        assert found == [b"a", b"inner", b"b"]


def test_a_frame_that_is_too_large_is_skipped_or_a_resync(engine: ModuleType) -> None:
    codec = CHECKED.replace(max_message_size=5)
    data = codec.encode(b"a") + CHECKED.encode(b"123456") + codec.encode(b"b")
    for pieces in cuts(data, count=10):
        for on_oversize, counts in (("raise", (1, 0)), ("skip", (0, 1))):
            splitter = engine.Splitter(codec, on_invalid="resync", on_oversize=on_oversize)
            found = [message for piece in pieces for message in splitter.feed(piece)]
            assert found == [b"a", b"b"]
            assert (splitter.resyncs, splitter.skipped) == counts


def test_a_skipped_frame_with_a_wrong_trailer_is_discarded(engine: ModuleType) -> None:
    codec = Codec.uint(1, magic=b"M", trailer=b"!", max_message_size=5)
    data = b"M\x0612345M" + codec.encode(b"a") + b"M\x06123456M\x01b!"
    outcomes = set()
    for pieces in cuts(data, count=10):
        splitter = engine.Splitter(codec, on_invalid="resync", on_oversize="skip")
        found = [message for piece in pieces for message in splitter.feed(piece)]
        outcomes.add((tuple(found), splitter.resyncs, splitter.discarded, splitter.skipped))
    assert outcomes == {((b"a", b"b"), 2, 16, 0)} or len(outcomes) == 1
    ((found, resyncs, _, skipped),) = outcomes
    assert (found[-1], resyncs > 0, skipped) == (b"b", True, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_an_unknown_escape_of_a_skipped_frame_may_begin_the_next_one(
    engine: ModuleType, size: int
) -> None:
    codec = CODECS["escape, doubled"]
    stream = b"\1\0" + b"u" * 50 + codec.encode(b"one") + codec.encode(b"two")
    splitter = engine.Splitter(codec, on_oversize="skip", on_invalid="resync")
    messages: list[bytes] = []
    for start in range(0, len(stream), size):
        messages += splitter.feed(stream[start : start + size])
    assert messages == [b"one", b"two"]
    assert (splitter.resyncs, splitter.discarded) == (1, 52)
    assert (splitter.stream_offset, splitter.pending) == (len(stream), 0)


@pytest.mark.parametrize("pieces", [[b"a0"], [b"a", b"0"], [b"", b"a", b"0"]], ids=len)
def test_a_bad_frame_that_is_only_a_mark_which_was_cut(
    engine: ModuleType, pieces: list[bytes]
) -> None:
    splitter = engine.Splitter(Codec.delimiter(b"a0", min_message_size=2), on_invalid="resync")
    assert [message for piece in pieces for message in splitter.feed(piece)] == []
    assert (splitter.stream_offset, splitter.pending) == (2, 0)
    assert (splitter.resyncs, splitter.discarded) == (1, 2)
    assert splitter.feed(b"xxa0") == []  # up to this mark nothing is a frame
    assert splitter.feed(b"yya0") == [b"yy"]


def test_the_end_of_the_stream(engine: ModuleType) -> None:
    splitter = engine.Splitter(CHECKED, on_invalid="resync")
    assert splitter.feed(b"garbage M") == []
    assert splitter.pending == 1  # it may begin a mark
    splitter.feed_eof()
    assert (splitter.discarded, splitter.pending, splitter.stream_offset) == (9, 0, 9)
    splitter = engine.Splitter(CHECKED, on_invalid="resync")
    splitter.feed(b"garbage MG")
    with pytest.raises(IncompleteFrameError):
        splitter.feed_eof()
    splitter = engine.Splitter(CHECKED, on_invalid="resync", one_at_a_time=True)
    assert splitter.feed(b"x" + CHECKED.encode(b"a") + b"y" + CHECKED.encode(b"b") + b"z") == [b"a"]
    splitter.feed_eof()
    assert splitter.feed(b"") == [b"b"]
    assert splitter.feed(b"") == []
    assert splitter.discarded == 3


def test_detach_and_switch_while_no_mark_was_found(engine: ModuleType) -> None:
    splitter = engine.Splitter(CHECKED, on_invalid="resync")
    splitter.feed(b"garbage M")
    assert splitter.detach() == b"M"
    splitter = engine.Splitter(CHECKED, on_invalid="resync")
    splitter.feed(b"garbage M")
    with pytest.raises(ValueError, match="needs a codec whose frames begin with a mark"):
        splitter.switch(Codec.uint(1))
    assert splitter.switch(Codec.uint(1, magic=b"M")) == []
    assert splitter.feed(b"\1a") == [b"a"]
    assert splitter.stream_offset == 11


def test_an_exception_of_the_user_is_no_bad_frame(engine: ModuleType) -> None:
    def parse(view: memoryview) -> Any:
        if view[0] == 0xFF:
            raise KeyboardInterrupt
        return 1, view[0]

    codec = Codec.custom(parse, lambda message: bytes([len(message)]), magic=b"M")
    for pieces in ([b"xM\1a..M\xffrest"], [b"x", b"M\1a..M", b"\xffrest"]):
        splitter, found = engine.Splitter(codec, on_invalid="resync"), []
        for piece in pieces[:-1]:
            found += splitter.feed(piece)
        if len(pieces) == 1:  # the message comes first
            found += splitter.feed(pieces[-1])
        with pytest.raises(KeyboardInterrupt):
            splitter.feed(b"" if len(pieces) == 1 else pieces[-1])
        assert found == [b"a"]
        assert splitter.detach() == b"M\xffrest"


@pytest.mark.parametrize("size", [1, 1000, 10**9])
def test_the_work_for_magic_after_magic_is_bounded(engine: ModuleType, size: int) -> None:
    asked = []

    def parse(view: memoryview) -> Any:
        asked.append(len(view))
        return (1, 2) if view[0] != 0x4D else "nonsense"

    codec = Codec.custom(parse, lambda message: b"\2", magic=b"M", max_header=4)
    data = b"M" * 4000
    splitter = engine.Splitter(codec, on_invalid="resync")
    for pos in range(0, len(data), size):
        assert splitter.feed(data[pos : pos + size]) == []
    assert splitter.resyncs == splitter.discarded == len(data) - 1
    assert splitter.pending == 1
    assert sum(asked) < 40 * len(data)
    assert splitter.feed(b"\2ab") == [b"ab"]


def test_a_header_name_is_found_in_any_case_and_after_a_body(engine: ModuleType) -> None:
    codec = Codec.headers()
    data = b"Content-Length: x\r\n\r\nbodycontent-LENGTH: 2\r\n\r\nhi" + codec.encode(b"ho")
    for pieces in cuts(data, count=10):
        splitter = engine.Splitter(codec, on_invalid="resync")
        found = [message for piece in pieces for message in splitter.feed(piece)]
        assert (found, splitter.resyncs, splitter.discarded) == ([b"hi", b"ho"], 1, 25)


@pytest.mark.parametrize(
    ("codec", "options", "text"),
    [
        (Codec.uint(4), {"on_invalid": "resync"}, "begin with a mark: a magic"),
        (Codec.uint(4, constants={4: b"x"}), {"on_invalid": "resync"}, "begin with a mark"),
        (
            Codec.choice({1: Codec.uint(1, length_offset=1), 2: Codec.fixed(2)}),
            {"on_invalid": "resync"},
            "begin with a mark",
        ),
        (CHECKED, {"on_invalid": "skip"}, '"raise" or "resync", not \'skip\''),
        (CHECKED, {"on_invalid": True}, '"raise" or "resync", not True'),
    ],
)
def test_on_invalid_is_checked(
    engine: ModuleType, codec: Codec, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        engine.Splitter(codec, **options)


# --- where the option is taken --------------------------------------------------------------------

DATA = b"xx" + CHECKED.encode(b"one") + b"yy" + CHECKED.encode(b"two")


def test_codec_splitter_and_read_take_on_invalid(engine_in_use: ModuleType) -> None:
    codec = CHECKED.replace()
    assert codec.splitter(on_invalid="resync").feed(DATA) == [b"one", b"two"]
    for source in (DATA, io.BytesIO(DATA), [DATA[:5], DATA[5:]]):
        assert list(codec.read(source, on_invalid="resync")) == [b"one", b"two"]
    with pytest.raises(InvalidFrameError):
        list(codec.read(DATA))


def test_frame_socket_takes_on_invalid(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(4, magic=b"MG", check=Check("crc32", 4))
    with stream_pair("socketpair") as (left, right):
        left.settimeout(TIMEOUT)
        right.settimeout(TIMEOUT)
        with FrameSocket(right, codec, on_invalid="resync") as conn:
            left.sendall(b"xx" + codec.encode(b"one") + b"yy" + codec.encode(b"two") + b"M")
            assert [conn.recv(), conn.recv()] == [b"one", b"two"]
            left.sendall(b"..." + codec.encode(b"three"))
            target = io.BytesIO()
            assert conn.recv_file(target) == 5
            assert target.getvalue() == b"three"


def test_resync_one_at_a_time_reads_a_mark_again_that_a_chunk_cut(engine: ModuleType) -> None:
    codec = Codec.delimiter(b"\r\n")
    splitter = engine.Splitter(codec, on_invalid="resync", one_at_a_time=True)
    assert splitter.feed(b"a\r") == []
    assert splitter.feed(b"\nb\r") == [b"a"]
    assert splitter.feed(b"\n") == [b"b"]
    assert splitter.feed(b"") == []


def test_resync_one_at_a_time_raises_for_a_cut_frame_after_the_whole_ones(
    engine: ModuleType,
) -> None:
    codec = Codec.uint(1, magic=b"M")
    splitter = engine.Splitter(codec, on_invalid="resync", one_at_a_time=True)
    assert splitter.feed(b"M\1aM\1bM\2c") == [b"a"]
    splitter.feed_eof()
    assert splitter.feed(b"") == [b"b"]
    with pytest.raises(IncompleteFrameError):
        splitter.feed(b"")


def test_resync_passes_over_the_rest_of_a_longer_mark_and_over_escapes(engine: ModuleType) -> None:
    longer = Codec.delimiter(b"\r\n", b"\r", max_message_size=5)
    splitter = engine.Splitter(longer, on_invalid="resync")
    assert splitter.feed(b"too long\r\nab\rc\r\n") == [b"ab", b"c"]
    assert splitter.resyncs == 1
    escaped = Codec.delimiter(b"\n", escape={b"\n": b"+n", b"+": b"++"}, max_message_size=5)
    splitter = engine.Splitter(escaped, on_invalid="resync")
    assert splitter.feed(b"too long ++ +n \nab+nc\n") == [b"ab\nc"]
    assert splitter.resyncs == 1


def test_resync_after_a_bad_fragment_of_a_skipped_message(engine: ModuleType) -> None:
    codec = Codec.joined(Codec.uint(1, magic=b"M"), full=4, max_message_size=6)
    splitter = engine.Splitter(codec, on_invalid="resync", on_oversize="skip")
    stream = b"M\4abcdM\4efghM\4ijklXM\1z"
    for pieces in ([stream], [bytes([byte]) for byte in stream]):
        splitter = engine.Splitter(codec, on_invalid="resync", on_oversize="skip")
        messages = [message for piece in pieces for message in splitter.feed(piece)]
        assert messages == [b"z"]
        assert splitter.stream_offset == len(stream)
        assert splitter.resyncs == 1


def test_switch_of_a_splitter_with_resync_needs_a_mark(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1, magic=b"M"), on_invalid="resync")
    with pytest.raises(ValueError, match="mark"):
        splitter.switch(Codec.uint(1))
    assert splitter.switch(Codec.delimiter(b"\n", max_message_size=3)) == []
    assert splitter.feed(b"abcd\ne\n") == [b"e"]


class Full(bytearray):
    """Bytes to which nothing can be added, because memory is short."""

    def __iadd__(self, more: Any) -> Any:  # type: ignore[override,misc]
        raise MemoryError


@pytest.mark.parametrize("options", [{"on_invalid": "resync"}, {"one_at_a_time": True}], ids=str)
def test_detach_returns_a_chunk_for_which_the_python_engine_had_no_memory(options: Any) -> None:
    splitter = _splitter_py.Splitter(Codec.uint(1, magic=b"M"), stream_offset=1000, **options)
    assert splitter.feed(b"M\1aM\3b") == [b"a"]
    splitter._held = Full(splitter._held)
    for _ in range(2):
        with pytest.raises(MemoryError):
            splitter.feed(b"cdM")
    unread = splitter.stream_offset, splitter.pending, splitter.detach()
    assert unread == (1003, 6, b"M\3bcdM")
