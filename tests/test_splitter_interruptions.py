"""Signal handlers that raise inside the Python engine: nothing is lost silently.

CPython runs a handler at the entry of a Python function and after a call. A profile function is
called at the same places, so that a test can raise at each of them in turn. Compiled code runs no
handler inside a call.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from framecodec import Codec, FrameError, _splitter_py

MESSAGES = [b"a", b"bc" * 200, b"", b"d" * 20_000, b"e" * 3, b"f" * 70_000, b"g"]
CODECS = {
    "plain": Codec.uint(4),
    "magic, lead and trailer": Codec.uint(2, magic=b"M", length_offset=2, trailer=b"END"),
    "specials": Codec.uint(4, signed=True, specials={-1: None}),
    "text": Codec.text(trailer=b","),
    "headers": Codec.headers(),
    "varint": Codec.varint(),
    "lines": Codec.delimiter(b"\n", b"\r\n"),
    "slip": Codec.delimiter(b"\xc0", escape={b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"}),
    "cobs": Codec.cobs(),
    "custom": Codec.custom(
        lambda view: None if len(view) < 9 else (4, int.from_bytes(view[:4], "big")),
        lambda message: len(message).to_bytes(4, "big"),
    ),
}


# The modules of the splitter.
PARTS = (
    "_splitter_py.py",
    "_read_memory_py.py",
    *("_keeping_reader_py.py", "_frame_reader_py.py", "_plain_reader_py.py"),
    *("_fields_py.py", "_header_block.py", "_check_bytes.py"),
    *("_quick_frames_py.py", "_quick_loops_py.py"),
    *("_marked_reader_py.py", "_split_frames_py.py", "_marks_py.py"),
)


class Interrupted(BaseException):
    pass


class Handler:
    """Raises at the entry of a Python function, or after a call, when it has seen that many."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.endswith(PARTS):
            self.left -= 1
            if self.left < 0:
                sys.setprofile(None)
                raise Interrupted


def interrupted_at(number: int, call: Any, *arguments: Any) -> tuple[Any, bool, bool]:
    """The call's result; whether it raised; whether the handler raised at all."""
    handler = Handler(number)
    sys.setprofile(handler)
    try:
        result = call(*arguments)
    except Interrupted:
        return [], True, True
    finally:
        sys.setprofile(None)
    return result, False, handler.left < 0


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("name", CODECS)
def test_splitter_interrupted_anywhere_loses_and_doubles_nothing(name: str, raw: bool) -> None:
    codec = CODECS[name]
    if name == "specials":
        messages: list[Any] = [*MESSAGES, None, b"x", None]
    elif codec.layout.lead_size:
        messages = [b"12" + message for message in MESSAGES if len(message) < 60_000]
    else:
        messages = list(MESSAGES)
    frames = [codec.encode(message) for message in messages]
    stream = b"".join(frames)
    starts = {0}
    for frame in frames:
        starts.add(max(starts) + len(frame))
    cuts = [(0, len(stream)), (3, len(stream)), (3, 10), (500, 15_000), (30_000, len(stream))]
    seen = 0
    for first, last in cuts:
        for number in range(2000):
            splitter = _splitter_py.Splitter(codec, raw=raw)
            before = splitter.feed(stream[:first])
            got, raised, interrupted = interrupted_at(number, splitter.feed, stream[first:last])
            if not interrupted:
                break
            seen += 1
            if splitter.error is None:
                taken = splitter.stream_offset + splitter.pending
                assert taken in (first, last), (number, first)
                assert raised
                assert not got
                rest = splitter.feed(stream[taken:])
                expected = frames if raw else messages
                assert [*before, *rest] == expected[: len(before) + len(rest)]
                whole = _splitter_py.Splitter(codec, raw=raw)
                assert [*before, *rest] == whole.feed(stream)
                continue
            with pytest.raises((Interrupted, FrameError)):
                splitter.feed(b"")
            unfinished = splitter.detach()
            assert stream[:last].endswith(unfinished)
            assert last - len(unfinished) in starts
            if not raised:  # the messages before the error were delivered
                delivered = sum(map(len, frames[: len(before) + len(got)]))
                assert delivered == last - len(unfinished)
        else:
            pytest.fail("the call never came to its end")
    assert seen > 50
