"""One message a call, and switching to another codec, on both engines."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from types import ModuleType
from typing import Any

import pytest

from framecodec import (
    Codec,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
)
from tests.helpers.chunking import by_buffer, byte_by_byte, hand_overs, random_cuts
from tests.helpers.observe import outcome_of, visible
from tests.helpers.sample_codecs import CODECS, streams

U2 = Codec.uint(2)
LINE = Codec.custom(
    lambda view: (
        (end + 1, 0, bytes(view[: end + 1])) if (end := bytes(view).find(b"\n")) >= 0 else None
    ),
    lambda message: (bytes(message), len(message)),
    max_header=100,
)


def one_by_one(splitter: Any, piece: bytes, hand_over: Any = None) -> list[Any]:
    """Feed a piece and take all messages, each by one call; an error ends it."""
    messages: list[Any] = []
    try:
        found = splitter.feed(piece) if hand_over is None else hand_over(splitter, piece)
        while found:
            assert len(found) == 1
            messages += found
            found = splitter.feed(b"")
    except FrameError:
        pass  # splitter.error
    return messages


# --- one message a call ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
def test_one_at_a_time_gives_the_outcome_of_many_at_a_time(engine: ModuleType, name: str) -> None:
    codec = CODECS[name]
    for number, stream in enumerate(streams(codec, size=60, count=12, seed=21)):
        ways: dict[str, Any] = {
            "raw": number % 2 == 1,
            "on_oversize": "skip" if number % 3 == 1 else "raise",
            "stream_offset": 1000 * (number % 2),
            "keep_headers": number % 4 < 2,
        }
        expected = engine.Splitter(codec, **ways)
        whole = outcome_of(expected.feed, stream)
        messages = whole if isinstance(whole, list) else []
        ends = [outcome_of(expected.feed_eof) for _ in range(2)]
        for pieces in ([stream], byte_by_byte(stream), *random_cuts(stream, 2, number)):
            splitter = engine.Splitter(codec, one_at_a_time=True, **ways)
            found: list[Any] = []
            for piece in pieces:
                if splitter.error is None:
                    found += one_by_one(splitter, piece)
            broken = splitter.error is not None
            assert found == messages
            assert [outcome_of(splitter.feed_eof) for _ in range(2)] == ends
            seen, wanted = visible(splitter), visible(expected)
            unread = splitter.detach()
            all_unread = engine_detach(engine, codec, stream, ways)
            if broken:  # what came after the bad byte was not fed
                assert all_unread.startswith(unread)
                seen["pending"] = wanted["pending"]
            else:
                assert all_unread == unread
            seen["headers"] = wanted["headers"]  # those of the last call
            assert seen == wanted


def engine_detach(engine: ModuleType, codec: Codec, stream: bytes, ways: Any) -> bytes:
    splitter = engine.Splitter(codec, **ways)
    outcome_of(splitter.feed, stream)
    unread: bytes = splitter.detach()
    return unread


@pytest.mark.parametrize("hand_over", hand_overs)
def test_one_at_a_time_takes_every_kind_of_chunk(engine: ModuleType, hand_over: str) -> None:
    messages = [bytes([n]) * (n % 50) for n in range(100)]
    stream = U2.encode_many(messages)
    splitter = engine.Splitter(U2, one_at_a_time=True)
    found: list[bytes] = []
    for piece in (stream[:1001], stream[1001:]):
        found += one_by_one(splitter, piece, hand_overs[hand_over])
    assert found == messages


def test_one_at_a_time_has_an_exact_position_after_each_message(engine: ModuleType) -> None:
    splitter = engine.Splitter(U2, one_at_a_time=True, stream_offset=100)
    assert splitter.feed(b"\0\1a\0\2bb\0\0\0\3cc") == [b"a"]
    assert (splitter.stream_offset, splitter.pending, splitter.bytes_needed) == (103, 10, 1)
    assert splitter.feed(b"") == [b"bb"]
    assert (splitter.stream_offset, splitter.pending) == (107, 6)
    assert splitter.feed(b"c\0\1d") == [b""]
    assert (splitter.stream_offset, splitter.pending) == (109, 8)
    assert splitter.feed(b"\0") == [b"ccc"]
    assert (splitter.stream_offset, splitter.pending) == (114, 4)
    assert splitter.feed(b"") == [b"d"]
    assert (splitter.stream_offset, splitter.pending, splitter.bytes_needed) == (117, 1, 1)
    assert splitter.feed(b"") == []
    assert splitter.pending_header == b"\0"
    assert splitter.feed(b"\5") == []
    assert splitter.bytes_needed == 5


def test_one_at_a_time_does_not_look_at_bytes_after_a_message(engine: ModuleType) -> None:
    seen: list[bytes] = []

    def parse(view: memoryview) -> Any:
        seen.append(bytes(view))
        if view[0] == 0xFF:
            raise ValueError("no header")
        return 1, view[0]

    codec = Codec.custom(parse, lambda message: bytes([len(message)]))
    splitter = engine.Splitter(codec, one_at_a_time=True, on_oversize="skip")
    assert splitter.feed(b"\1a\xff\xff") == [b"a"]
    assert splitter.error is None
    assert len(seen) == 1
    assert splitter.detach() == b"\xff\xff"


def test_feed_eof_of_undelivered_messages_raises_nothing(engine: ModuleType) -> None:
    splitter = engine.Splitter(U2, one_at_a_time=True)
    assert splitter.feed(b"\0\1a\0\1b\0\1c") == [b"a"]
    splitter.feed_eof()
    assert splitter.feed(b"") == [b"b"]
    splitter.feed_eof()
    assert [splitter.feed(b"") for _ in range(3)] == [[b"c"], [], []]
    splitter.feed_eof()


def test_feed_after_feed_eof_raises_for_a_frame_that_was_cut_off(engine: ModuleType) -> None:
    splitter = engine.Splitter(U2, one_at_a_time=True)
    assert splitter.feed(b"\0\1a\0\1b\0\1") == [b"a"]
    splitter.feed_eof()
    assert splitter.feed(b"") == [b"b"]
    for call in (lambda: splitter.feed(b""), splitter.feed_eof):
        with pytest.raises(IncompleteFrameError, match="inside the rest after 2 of 3") as caught:
            call()
        assert caught.value.stream_offset == 6
    assert splitter.detach() == b"\0\1"


@pytest.mark.parametrize("end", [b"\0", b"\0\1", b"\0\5abc"])
def test_feed_eof_raises_if_no_undelivered_message_is_whole(engine: ModuleType, end: bytes) -> None:
    splitter = engine.Splitter(U2, one_at_a_time=True)
    assert splitter.feed(b"\0\1a" + end) == [b"a"]
    with pytest.raises(IncompleteFrameError) as caught:
        splitter.feed_eof()
    assert caught.value.received == len(end)
    assert splitter.detach() == end


def test_feed_eof_raises_the_error_of_a_bad_undelivered_frame(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1, trailer=b"!"), one_at_a_time=True)
    assert splitter.feed(b"\1a!\1b?\0!") == [b"a"]
    assert splitter.error is None
    with pytest.raises(InvalidFrameError, match="trailer"):
        splitter.feed_eof()
    assert splitter.detach() == b"\1b?\0!"


def test_one_at_a_time_skips_oversized_frames_between_messages(engine: ModuleType) -> None:
    codec = Codec.uint(1, max_message_size=2)
    splitter = engine.Splitter(codec, one_at_a_time=True, on_oversize="skip")
    assert splitter.feed(b"\3aaa\1b\3ccc\3ddd\1e\3fff") == [b"b"]
    assert (splitter.skipped, splitter.stream_offset) == (1, 6)
    assert splitter.feed(b"") == [b"e"]
    assert (splitter.skipped, splitter.stream_offset) == (3, 16)
    splitter.feed_eof()  # a skipped frame is whole
    assert splitter.skipped == 4
    assert splitter.detach() == b""


def test_one_at_a_time_reads_bytes_that_parse_looked_ahead_at(engine: ModuleType) -> None:
    def parse(view: memoryview) -> Any:  # needs to see four bytes for a header of one
        return (1, view[0]) if len(view) >= 4 else None

    codec = Codec.custom(parse, lambda message: bytes([len(message)]))
    stream = b"\1a\0\0\1b\0\0\2cd\0\0\0"
    expected = [b"a", b"", b"", b"b", b"", b"", b"cd"]
    for pieces in ([stream], byte_by_byte(stream), *random_cuts(stream, 40)):
        splitter = engine.Splitter(codec, one_at_a_time=True)
        found = list(itertools.chain(*(one_by_one(splitter, piece) for piece in pieces)))
        assert found == expected
        assert splitter.detach() == b"\0\0\0"


@pytest.mark.slow
def test_one_at_a_time_is_linear_in_what_is_held(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1), one_at_a_time=True)
    count = 0
    for _ in range(300):  # each call leaves 999 messages more
        count += len(splitter.feed(b"\1a" * 1000))
    for _ in range(300 * 1000):
        count += len(splitter.feed(b""))
    assert count == 300 * 1000
    assert splitter.pending == 0


def test_one_at_a_time_releases_the_memory_of_what_it_held(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(4), one_at_a_time=True)
    stream = Codec.uint(4).encode_many([bytes(1000)] * 2000)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        splitter.feed(stream)
        held = tracemalloc.get_traced_memory()[0] - before
        while splitter.feed(b""):
            pass
        after = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 1.2 * len(stream)
    assert after < 10_000


def test_one_at_a_time_refuses_what_feed_refuses(engine: ModuleType) -> None:
    splitter = engine.Splitter(U2, one_at_a_time=True)
    assert splitter.feed(b"\0\1a\0\1b") == [b"a"]
    with pytest.raises(TypeError):
        splitter.feed("text")
    assert splitter.feed(b"") == [b"b"]
    splitter.detach()
    with pytest.raises(ValueError, match="detached"):
        splitter.feed(b"")


def test_codec_splitter_takes_one_at_a_time() -> None:
    splitter = U2.splitter(one_at_a_time=True)
    assert splitter.feed(b"\0\1a\0\1b") == [b"a"]


# --- another codec --------------------------------------------------------------------------------


def test_switch_reads_the_bytes_after_the_last_message_with_another_codec(
    engine: ModuleType,
) -> None:
    splitter = engine.Splitter(Codec.text(trailer=b","))
    assert splitter.feed(b"2:ok,\0") == [b"ok"]
    assert splitter.error is not None  # 0 is no digit
    assert splitter.switch(U2) == []
    assert splitter.error is None
    assert (splitter.stream_offset, splitter.pending, splitter.bytes_needed) == (5, 1, 1)
    assert splitter.feed(b"\3abc\0\1") == [b"abc"]
    assert splitter.stream_offset == 10
    assert splitter.switch(Codec.uint(1)) == [b""]
    assert splitter.bytes_needed == 1


def test_switch_returns_the_messages_that_are_complete(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1, max_message_size=50))
    assert splitter.feed(b"\2ok\xffa\nb\nc") == [b"ok"]
    assert isinstance(splitter.error, MessageTooLargeError)
    assert splitter.switch(LINE) == [b"\xffa\n", b"b\n"]
    assert splitter.feed(b"\n") == [b"c\n"]
    assert splitter.stream_offset == 10


@pytest.mark.parametrize("second", [Codec.digits(4, base=16), Codec.fixed(3), U2, Codec.uint(1)])
def test_switch_does_not_depend_on_the_chunks(engine: ModuleType, second: Codec) -> None:
    """After a PROXY header come bytes that its codec would skip, refuse or wait for."""
    opening = Codec.uint(1, max_message_size=20)
    stream = opening.encode(b"PROXY") + b"\x00\x03fff000501234"
    outcomes = []
    for size in range(len(stream) + 1):
        splitter = engine.Splitter(opening, one_at_a_time=True, on_oversize="skip")
        messages = one_by_one_until(splitter, [stream[:size], stream[size:]], second)
        seen = visible(splitter)
        if splitter.error is None:
            seen["unread"] = splitter.detach()
        else:
            del seen["pending"]  # a broken stream takes no more pieces
        outcomes.append((messages, seen))
    assert outcomes[0][0][:1] == [b"PROXY"]
    assert all(outcome == outcomes[0] for outcome in outcomes)


def one_by_one_until(splitter: Any, pieces: list[bytes], second: Codec) -> list[Any]:
    """Return all messages of a stream whose first one is followed by another codec's."""
    messages: list[Any] = []
    for piece in pieces:
        found = outcome_of(splitter.feed, piece)
        while isinstance(found, list) and found:
            messages += found
            first = len(messages) == 1
            found = outcome_of(splitter.switch, second) if first else outcome_of(splitter.feed, b"")
    return messages


def test_switch_returns_one_message_with_one_at_a_time(engine: ModuleType) -> None:
    splitter = engine.Splitter(U2, one_at_a_time=True)
    assert splitter.feed(b"\0\1a\1b\1c\1d") == [b"a"]
    assert splitter.switch(Codec.uint(1)) == [b"b"]
    assert splitter.feed(b"") == [b"c"]
    assert splitter.switch(Codec.fixed(1)) == [b"\1"]
    assert splitter.feed(b"") == [b"d"]
    assert splitter.stream_offset == 9


def test_switch_raises_the_error_of_the_first_frame_under_the_new_codec(
    engine: ModuleType,
) -> None:
    splitter = engine.Splitter(Codec.uint(1), stream_offset=10)
    assert splitter.feed(b"\1a\5x") == [b"a"]
    for call in (lambda: splitter.switch(Codec.digits(2)), lambda: splitter.feed(b"")):
        with pytest.raises(InvalidFrameError) as caught:
            call()
        assert caught.value.stream_offset == 12
    assert splitter.switch(Codec.fixed(2)) == [b"\5x"]  # which clears it again


def test_switch_delivers_messages_before_an_error(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1))
    assert splitter.feed(b"\1a0001b0x") == [b"a"]
    assert splitter.switch(Codec.digits(4)) == [b"b"]
    assert isinstance(splitter.error, InvalidFrameError)
    assert splitter.detach() == b"0x"


def test_switch_inside_an_unfinished_frame_reads_it_again(engine: ModuleType) -> None:
    frame = b"1:" + bytes(100_000)
    splitter = engine.Splitter(Codec.text(length_adjustment=200_000, max_message_size=None))
    for pos in range(0, len(frame), 30_000):
        assert splitter.feed(frame[pos : pos + 30_000]) == []
    assert splitter.switch(Codec.fixed(100_002)) == [frame]
    assert splitter.pending == 0


def test_switch_clears_the_error_of_feed_eof(engine: ModuleType) -> None:
    splitter = engine.Splitter(U2)
    splitter.feed(b"\0\5abc")
    with pytest.raises(IncompleteFrameError):
        splitter.feed_eof()
    assert splitter.switch(Codec.fixed(5)) == [b"\0\5abc"]
    splitter.feed_eof()


def test_switch_of_raw_and_skip_keeps_both(engine: ModuleType) -> None:
    small = Codec.uint(1, max_message_size=3)
    splitter = engine.Splitter(small, raw=True, on_oversize="skip")
    assert splitter.feed(b"\1a\5bbbbb\2") == [b"\1a"]
    assert splitter.skipped == 1
    with pytest.raises(InvalidFrameError):
        splitter.switch(Codec.text(max_message_size=3))
    splitter = engine.Splitter(small, raw=True, on_oversize="skip")
    assert splitter.feed(b"\1a\5bbbbb") == [b"\1a"]
    assert splitter.switch(Codec.text(max_message_size=3)) == []
    assert splitter.feed(b"2:ab4:abcd1:x") == [b"2:ab", b"1:x"]
    assert splitter.skipped == 2


def test_switch_inside_a_skipped_frame_raises(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1, max_message_size=3), on_oversize="skip")
    assert splitter.feed(b"\1a\5bb") == [b"a"]
    with pytest.raises(ValueError, match="skipped"):
        splitter.switch(U2)
    assert splitter.feed(b"bbb\1c") == [b"c"]
    assert splitter.switch(U2) == []


@pytest.mark.parametrize("one_at_a_time", [False, True])
@pytest.mark.parametrize("size", range(9))
def test_switch_after_a_padded_frame_drops_the_padding(
    engine: ModuleType, size: int, one_at_a_time: bool
) -> None:
    stream = b"\1a\0\0\0\0\0\0" + b"\0\1b"
    splitter = engine.Splitter(Codec.uint(1, align=8), one_at_a_time=one_at_a_time)
    messages = splitter.feed(stream[:size])
    messages += splitter.feed(stream[size:8]) if not messages else []
    assert messages == [b"a"]
    rest = stream[8:] if size < 2 else stream[size:]
    assert splitter.switch(U2) == []
    assert splitter.feed(rest) == [b"b"]
    assert splitter.stream_offset == len(stream)
    splitter.feed_eof()


def test_feed_eof_inside_padding_after_a_switch(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1, align=8))
    assert splitter.feed(b"\1a\0") == [b"a"]
    splitter.switch(Codec.uint(2, align=5))
    assert splitter.bytes_needed == 5
    with pytest.raises(IncompleteFrameError, match="3 of 8") as caught:
        splitter.feed_eof()
    assert (caught.value.where, caught.value.needed) == ("trailer", 8)


def test_switch_keeps_headers_for_a_codec_that_needs_them(engine: ModuleType) -> None:
    splitter = engine.Splitter(U2, keep_headers=True)
    assert splitter.feed(b"\0\1a0A0123456789") == [b"a"]
    assert splitter.headers is None
    assert splitter.switch(Codec.digits(2, base=16)) == [b"0123456789"]
    assert splitter.headers == [b"0A"]
    splitter.switch(U2)
    assert splitter.headers is None


def test_switch_refuses_what_is_no_codec(engine: ModuleType) -> None:
    splitter = engine.Splitter(U2)
    splitter.feed(b"\0")
    with pytest.raises(TypeError, match="codec must be a"):
        splitter.switch("u16be")
    assert splitter.feed(b"\1a") == [b"a"]
    splitter.detach()
    with pytest.raises(ValueError, match="detached"):
        splitter.switch(U2)


def test_switch_from_inside_parse_raises(engine: ModuleType) -> None:
    def parse(view: memoryview) -> Any:
        splitter.switch(U2)

    splitter = engine.Splitter(Codec.custom(parse, bytes))
    with pytest.raises(InvalidFrameError, match="in use by another call"):
        splitter.feed(b"x")


def test_switch_leaves_a_buffer_that_was_given_usable(engine: ModuleType) -> None:
    splitter = engine.Splitter(U2)
    buffer = splitter.get_buffer()
    buffer[:2] = b"\1a"
    splitter.switch(Codec.uint(1))
    assert splitter.buffer_updated(2) == [b"a"]


def test_switch_withdraws_memory_of_a_message(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(4))
    splitter.feed(Codec.uint(4).encode(bytes(1_000_000))[:400_000])
    memory = splitter.get_room(100_000)
    assert splitter.switch(Codec.fixed(400_000)) == [b"\0\x0f\x42\x40" + bytes(399_996)]
    with pytest.raises(ValueError, match="without a get_buffer"):
        splitter.buffer_updated(5)
    del memory
    assert by_buffer(splitter, bytes(400_000)) == [bytes(400_000)]


@pytest.mark.slow
@pytest.mark.c_extension
@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_both_engines_switch_alike(
    both_engines: tuple[ModuleType, ModuleType], one_at_a_time: bool
) -> None:
    names = list(CODECS)
    for number, (name, other) in enumerate(zip(names, names[7:] + names[:7], strict=True)):
        codec, second = CODECS[name], CODECS[other]
        for stream in streams(codec, size=40, count=3, seed=number):
            for cut in {0, 1, len(stream) // 2, len(stream)}:
                seen = []
                for engine in both_engines:
                    splitter = engine.Splitter(
                        codec,
                        one_at_a_time=one_at_a_time,
                        keep_headers=number % 2 == 0,
                        raw=number % 5 == 0,
                        on_oversize="skip" if number % 3 else "raise",
                    )
                    calls: list[Any] = [
                        lambda s=splitter, d=stream[:cut]: s.feed(d),
                        lambda s=splitter, c=second: s.switch(c),
                        lambda s=splitter, d=stream[cut:]: by_buffer(s, d),
                        *[lambda s=splitter: s.feed(b"")] * 2,
                        lambda s=splitter, c=codec: s.switch(c),
                        splitter._unread,
                        splitter.feed_eof,
                        splitter.detach,
                    ]
                    seen.append([(outcome_of(call), visible(splitter)) for call in calls])
                assert seen[0] == seen[1]


def test_switch_inside_padding_reads_lines_after_it(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1, align=4))
    assert splitter.feed(b"\1a\0") == [b"a"]
    assert splitter.switch(Codec.delimiter()) == []
    assert splitter.feed(b"\0one\ntwo\nthr") == [b"one", b"two"]
    assert splitter.feed(b"ee\n") == [b"three"]
