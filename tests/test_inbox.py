"""The receive side of a connection, without a socket and without a clock."""

from __future__ import annotations

import sys
import traceback
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from framecodec import Codec
from framecodec._error_texts import PendingFrame
from framecodec._inbox import NEED_DATA, Inbox, check_seconds
from framecodec.errors import (
    IdleTimeoutError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTimeoutError,
)

pytestmark = pytest.mark.usefixtures("engine_in_use")

CODEC = Codec.uint(2)
CLEAN_END = "the peer closed the connection; the last frame was whole"


class Queue:
    """A queue of ready messages, as an owner of an inbox has it."""

    def __init__(self) -> None:
        self.messages: deque[Any] = deque()
        self.put = self.messages.extend

    def __iter__(self) -> Iterator[Any]:
        while self.messages:
            yield self.messages.popleft()

    def __len__(self) -> int:
        return len(self.messages)

    def unread(self) -> list[Any]:
        return [*self.messages]


def receive(inbox: Inbox, data: bytes, now: float = 0.0) -> list[Any]:
    """Receive as a transport does, by a buffer or several."""
    messages = []
    while data:
        with inbox.get_buffer(len(data)) as buffer:
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
        messages += inbox.buffer_updated(count, now)
        data = data[count:]
    return messages


def new_inbox(codec: Codec = CODEC, **limits: Any) -> Inbox:
    return Inbox(codec.replace(), Queue(), **limits)


# --- messages, the end, failures ------------------------------------------------------------------


def test_take_gives_the_messages_in_order_and_then_needs_data() -> None:
    inbox = new_inbox()
    assert inbox.take() is NEED_DATA
    assert receive(inbox, CODEC.encode_many([b"one", b"two"]) + b"\0") == [b"one", b"two"]
    assert receive(inbox, b"\3six") == [b"six"]
    assert [inbox.take() for _ in range(4)] == [b"one", b"two", b"six", NEED_DATA]
    assert repr(NEED_DATA) == "NEED_DATA"


def test_buffer_updated_without_a_queue_returns_the_messages_only() -> None:
    inbox = Inbox(CODEC.replace())
    assert receive(inbox, CODEC.encode(b"one")) == [b"one"]
    assert inbox.take() is NEED_DATA
    inbox.feed_eof()
    with pytest.raises(EOFError, match=CLEAN_END):
        inbox.take()


def test_feed_eof_after_a_whole_frame_is_a_clean_end_after_the_messages() -> None:
    inbox = new_inbox()
    receive(inbox, CODEC.encode(b"one"))
    inbox.feed_eof()
    inbox.feed_eof()
    assert inbox.take() == b"one"
    for _ in range(2):
        with pytest.raises(EOFError, match=CLEAN_END) as caught:
            inbox.take()
        assert type(caught.value) is EOFError
        assert caught.value is inbox.failure


def test_feed_eof_inside_a_frame_is_a_broken_end() -> None:
    inbox = new_inbox()
    receive(inbox, CODEC.encode(b"one") + b"\0\5he")
    inbox.feed_eof()
    assert inbox.take() == b"one"
    for _ in range(2):
        with pytest.raises(IncompleteFrameError) as caught:
            inbox.take()
    assert (caught.value.stream_offset, caught.value.received, caught.value.needed) == (5, 4, 7)


def test_a_bad_frame_is_raised_after_the_messages_before_it() -> None:
    codec = Codec.uint(1, magic=b"M")
    inbox = new_inbox(codec)
    assert receive(inbox, codec.encode(b"good") + b"bad") == [b"good"]
    assert isinstance(inbox.failure, InvalidFrameError)
    assert inbox.take() == b"good"
    for _ in range(2):
        with pytest.raises(InvalidFrameError) as caught:
            inbox.take()
        assert caught.value is inbox.failure
    inbox.feed_eof()  # changes nothing
    assert isinstance(inbox.failure, InvalidFrameError)


def test_a_bad_frame_without_messages_before_it_is_raised_at_once() -> None:
    inbox = new_inbox(Codec.uint(1, magic=b"M"))
    with pytest.raises(InvalidFrameError) as caught:
        receive(inbox, b"bad")
    with pytest.raises(InvalidFrameError) as again:
        inbox.take()
    assert again.value is caught.value


def test_fail_keeps_the_first_error_without_its_frames() -> None:
    inbox = new_inbox()
    cause = OSError("cause")
    try:
        raise ConnectionResetError("reset") from cause
    except ConnectionResetError as error:
        inbox.fail(error)
    inbox.fail(OSError("later"))
    lengths = []
    for _ in range(3):
        try:
            raise LookupError("handled elsewhere")
        except LookupError:
            with pytest.raises(ConnectionResetError) as caught:
                inbox.take()
        assert caught.value.__cause__ is cause
        assert caught.value.__suppress_context__
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len({*lengths}) == 1  # frames are not added by each receive


def test_a_queue_that_fails_ends_receiving() -> None:
    inbox = new_inbox()

    def refuse(messages: list[Any]) -> None:
        raise MemoryError

    inbox.ready.put = refuse  # type: ignore[union-attr, method-assign]
    with pytest.raises(MemoryError):
        receive(inbox, CODEC.encode(b"one"))
    with pytest.raises(MemoryError):
        inbox.take()


def test_detach_returns_what_was_not_delivered() -> None:
    inbox = new_inbox()
    wire = CODEC.encode_many([b"one", b"two"]) + b"\0\5he"
    receive(inbox, wire)
    assert inbox.take() == b"one"
    assert inbox.detach() == wire[5:]


def test_detach_without_a_queue_returns_the_unfinished_bytes() -> None:
    inbox = Inbox(CODEC.replace())
    receive(inbox, CODEC.encode(b"one") + b"\0")
    assert inbox.detach() == b"\0"


class Direct:
    """A message that is received without the splitter."""

    offset, header = 7, b"\0\x09"

    def __init__(self) -> None:
        self.count = 3

    def received(self) -> int:
        return self.count

    def pending_frame(self) -> PendingFrame:
        return PendingFrame(
            CODEC.layout, "rest", self.count, 9_000_000, self.offset, self.header, b"\0\x09x"
        )


def test_feed_eof_inside_a_direct_message_is_a_broken_end() -> None:
    inbox = new_inbox()
    inbox.direct = Direct()
    inbox.feed_eof()
    with pytest.raises(IncompleteFrameError, match="inside the rest after 3 of 9000000 bytes"):
        inbox.take()


# --- the peer's time ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["message_timeout", "idle_timeout"])
def test_a_limit_must_be_positive(name: str) -> None:
    for bad in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"{name} must be a positive number"):
            new_inbox(**{name: bad})
        with pytest.raises(ValueError, match=f"{name} must be a positive number"):
            check_seconds(name, bad)
    assert check_seconds(name, 2.5) == 2.5
    assert check_seconds(name, None) is None


def test_without_limits_there_is_no_deadline() -> None:
    inbox = new_inbox()
    assert not inbox.has_limits
    inbox.resume(0.0)
    receive(inbox, b"\0", 1.0)
    assert inbox.deadline() is None
    inbox.check_limits(1e9, drained=True)
    assert inbox.failure is None


def test_message_timeout_counts_from_the_first_byte_to_the_last() -> None:
    inbox = new_inbox(message_timeout=2.0)
    inbox.resume(0.0)
    assert inbox.deadline() is None  # between two messages
    receive(inbox, b"\0", 5.0)
    assert inbox.deadline() == 7.0
    receive(inbox, b"\5h", 6.0)
    assert inbox.deadline() == 7.0
    receive(inbox, b"ello", 6.5)
    assert inbox.deadline() is None


def test_message_timeout_starts_again_with_each_message() -> None:
    inbox = new_inbox(message_timeout=2.0)
    inbox.resume(0.0)
    receive(inbox, b"\0", 1.0)
    receive(inbox, b"\3one\0\3t", 2.5)  # its end, and the beginning of the next one
    assert inbox.deadline() == 4.5


def test_message_timeout_does_not_count_time_in_which_the_owner_does_not_receive() -> None:
    inbox = new_inbox(message_timeout=2.0)
    inbox.resume(0.0)
    receive(inbox, b"\0", 1.0)
    inbox.pause(1.5)
    assert inbox.deadline() is None
    inbox.check_limits(100.0, drained=True)
    assert inbox.failure is None
    inbox.pause(50.0)
    inbox.resume(100.0)
    inbox.resume(100.1)
    assert inbox.deadline() == 101.5
    assert not inbox.is_overdue(101.4)
    assert inbox.is_overdue(101.5)


def test_check_limits_says_how_far_the_message_came() -> None:
    inbox = new_inbox(message_timeout=2.0)
    inbox.resume(0.0)
    receive(inbox, CODEC.encode(b"one") + b"\0\5he", 1.0)
    inbox.check_limits(2.9, drained=True)
    assert inbox.failure is None
    inbox.check_limits(3.0, drained=True)
    assert inbox.deadline() is None  # it has failed
    assert inbox.take() == b"one"
    with pytest.raises(MessageTimeoutError, match="4 of 7 bytes") as caught:
        inbox.take()
    assert (caught.value.timeout, caught.value.stream_offset) == (2.0, 5)
    assert caught.value.header == b"\0\5"


def test_a_message_whose_bytes_the_kernel_holds_is_delivered_after_its_time() -> None:
    codec = Codec.uint(4)
    inbox = new_inbox(codec, message_timeout=2.0)
    inbox.resume(0.0)
    wire = codec.encode(bytes(150_000))
    receive(inbox, wire[:6], 1.0)
    # The owner is held up until 60.0; then the kernel has the rest.
    for start in range(6, len(wire), 10_000):
        inbox.check_limits(60.0, drained=False)
        assert inbox.failure is None
        receive(inbox, wire[start : start + 10_000], 60.0)
    inbox.check_limits(60.0, drained=True)
    assert inbox.take() == bytes(150_000)


def test_a_peer_that_never_pauses_is_cut_off_after_what_a_kernel_can_hold() -> None:
    codec = Codec.uint(4)
    inbox = new_inbox(codec, message_timeout=2.0)
    inbox.resume(0.0)
    receive(inbox, codec.encode(bytes(15_000_000))[:6], 1.0)
    count = 0
    while inbox.failure is None:
        inbox.check_limits(60.0, drained=False)
        receive(inbox, bytes(500_000), 60.0)
        count += 500_000
        assert count < 10_000_000
    assert count > 6_000_000
    with pytest.raises(MessageTimeoutError):
        inbox.take()


def test_idle_timeout_adds_up_over_several_waits() -> None:
    inbox = new_inbox(idle_timeout=0.3)
    for number, begin in enumerate([0.0, 5.0, 10.0]):
        inbox.resume(begin)
        assert inbox.deadline() == pytest.approx(begin + 0.3 - 0.125 * number)
        inbox.check_limits(begin + 0.125, drained=True)
        if number < 2:
            assert inbox.failure is None
            inbox.pause(begin + 0.125)
    with pytest.raises(IdleTimeoutError) as caught:
        inbox.take()
    assert (caught.value.timeout, caught.value.stream_offset) == (0.3, 0)


def test_idle_timeout_counts_only_while_the_owner_receives() -> None:
    inbox = new_inbox(idle_timeout=0.5)
    assert inbox.deadline() is None
    inbox.resume(0.0)
    inbox.pause(0.25)
    assert not inbox.receiving
    assert inbox.deadline() is None
    inbox.resume(8.0)
    assert inbox.receiving
    assert inbox.deadline() == 8.25


def test_a_byte_that_arrives_while_the_owner_does_not_receive_starts_nothing() -> None:
    inbox = new_inbox(message_timeout=2.0, idle_timeout=0.5)
    receive(inbox, b"\0", 1.0)
    assert inbox.deadline() is None
    inbox.resume(9.0)
    assert inbox.deadline() == 11.0


def test_idle_timeout_starts_again_with_each_byte_and_not_inside_a_message() -> None:
    inbox = new_inbox(idle_timeout=0.5)
    inbox.resume(0.0)
    assert inbox.deadline() == 0.5
    receive(inbox, b"\0", 0.25)
    assert inbox.deadline() is None  # inside a message
    receive(inbox, b"\1x", 8.0)
    assert inbox.deadline() == 8.5
    receive(inbox, b"\0\1y", 8.25)
    assert inbox.deadline() == 8.75


def test_the_limits_hold_for_a_direct_message() -> None:
    inbox = new_inbox(message_timeout=2.0, idle_timeout=1.0)
    inbox.resume(0.0)
    receive(inbox, b"\0\x09xx", 1.0)
    direct = Direct()
    inbox.splitter = CODEC.splitter()
    inbox.direct = direct
    inbox.note_arrival(1.5)
    assert inbox.deadline() == 3.0
    inbox.check_limits(3.0, drained=False)
    direct.count += 7_000_000
    assert inbox.failure is None
    inbox.check_limits(3.0, drained=False)
    with pytest.raises(MessageTimeoutError, match="7000003 of 9000000 bytes") as caught:
        inbox.take()
    assert (caught.value.stream_offset, caught.value.header) == (7, b"\0\x09")


def test_idle_timeout_starts_after_a_direct_message() -> None:
    inbox = new_inbox(message_timeout=2.0, idle_timeout=1.0)
    inbox.resume(0.0)
    receive(inbox, b"\0\x09xx", 1.0)
    inbox.splitter, inbox.direct = CODEC.splitter(), Direct()
    inbox.note_arrival(1.5)
    inbox.direct = None
    inbox.note_arrival(1.75)
    assert inbox.deadline() == 2.75


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts Python calls")
def test_buffer_updated_without_limits_makes_one_call_of_python() -> None:
    inbox = new_inbox()
    with inbox.get_buffer(100) as buffer:
        buffer[:5] = CODEC.encode(b"one")
    calls: list[str] = []
    profile = sys.getprofile()
    sys.setprofile(lambda frame, event, _: calls.append(f"{event} {frame.f_code.co_name}"))
    try:
        inbox.buffer_updated(5)
    finally:
        sys.setprofile(profile)
    own = [call for call in calls if call.startswith("call ") and "test" not in call]
    assert own[0] == "call buffer_updated"
    assert "call note_arrival" not in own
