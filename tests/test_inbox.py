"""The receive side of a connection, without a socket and without a clock."""

from __future__ import annotations

import traceback
from collections import deque
from typing import Any

import pytest

from framecodec import Codec
from framecodec._error_texts import PendingFrame
from framecodec._inbox import Inbox, check_seconds
from framecodec._observer import Observer
from framecodec.errors import (
    IdleTimeoutError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTimeoutError,
)

pytestmark = pytest.mark.usefixtures("engine_in_use")

CODEC = Codec.uint(2)
CLEAN_END = "the peer closed the connection; the last frame was whole"


class Owner:
    """What receives for an inbox, as a `FrameSocket` and a `FrameStream` do."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.queue: deque[Any] = deque()

    def receive(self, data: bytes, now: float = 0.0) -> list[Any]:
        """Receive into a buffer or several, parse and queue."""
        messages: list[Any] = []
        inbox = self.inbox
        while data:
            with inbox.splitter.get_room(len(data)) as buffer:
                count = min(len(buffer), len(data))
                buffer[:count] = data[:count]
            try:
                messages += inbox.splitter.buffer_updated(count)
            finally:
                if inbox.splitter.error is not None:
                    inbox.fail(inbox.splitter.error)
            if inbox.has_limits:
                inbox.note_arrival(now)
            data = data[count:]
        self.queue.extend(messages)
        return messages

    def take(self) -> Any:
        """Return the next message, or None if more bytes may come; raise the failure after all."""
        if self.queue:
            return self.queue.popleft()
        if self.inbox.failure is not None:
            self.inbox.raise_failure()
        return None


def new_owner(codec: Codec = CODEC, **limits: Any) -> tuple[Inbox, Owner]:
    inbox = Inbox(codec.replace(), **limits)
    return inbox, Owner(inbox)


# --- messages, the end, failures ------------------------------------------------------------------


def test_messages_are_in_order_and_then_more_bytes_may_come() -> None:
    _, owner = new_owner()
    assert owner.take() is None
    assert owner.receive(CODEC.encode_many([b"one", b"two"]) + b"\0") == [b"one", b"two"]
    assert owner.receive(b"\3six") == [b"six"]
    assert [owner.take() for _ in range(4)] == [b"one", b"two", b"six", None]


def test_feed_eof_after_a_whole_frame_is_a_clean_end_after_the_messages() -> None:
    inbox, owner = new_owner()
    owner.receive(CODEC.encode(b"one"))
    inbox.feed_eof()
    inbox.feed_eof()
    assert owner.take() == b"one"
    for _ in range(2):
        with pytest.raises(EOFError, match=CLEAN_END) as caught:
            owner.take()
        assert type(caught.value) is EOFError
        assert caught.value is inbox.failure


def test_feed_eof_inside_a_frame_is_a_broken_end() -> None:
    inbox, owner = new_owner()
    owner.receive(CODEC.encode(b"one") + b"\0\5he")
    inbox.feed_eof()
    assert owner.take() == b"one"
    for _ in range(2):
        with pytest.raises(IncompleteFrameError) as caught:
            owner.take()
    assert (caught.value.stream_offset, caught.value.received, caught.value.needed) == (5, 4, 7)


def test_a_bad_frame_is_raised_after_the_messages_before_it() -> None:
    codec = Codec.uint(1, magic=b"M")
    inbox, owner = new_owner(codec)
    assert owner.receive(codec.encode(b"good") + b"bad") == [b"good"]
    assert isinstance(inbox.failure, InvalidFrameError)
    assert owner.take() == b"good"
    for _ in range(2):
        with pytest.raises(InvalidFrameError) as caught:
            owner.take()
        assert caught.value is inbox.failure
    inbox.feed_eof()  # changes nothing
    assert isinstance(inbox.failure, InvalidFrameError)


def test_a_bad_frame_without_messages_before_it_is_raised_at_once() -> None:
    _, owner = new_owner(Codec.uint(1, magic=b"M"))
    with pytest.raises(InvalidFrameError) as caught:
        owner.receive(b"bad")
    with pytest.raises(InvalidFrameError) as again:
        owner.take()
    assert again.value is caught.value


def test_fail_keeps_the_first_error_without_its_frames() -> None:
    inbox, owner = new_owner()
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
                owner.take()
        assert caught.value.__cause__ is cause
        assert caught.value.__suppress_context__
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len({*lengths}) == 1  # frames are not added by each receive


def test_detach_returns_what_was_not_delivered() -> None:
    inbox, owner = new_owner()
    wire = CODEC.encode_many([b"one", b"two"]) + b"\0\5he"
    owner.receive(wire)
    assert owner.take() == b"one"
    assert inbox.detach([*owner.queue]) == wire[5:]


def test_detach_returns_the_unfinished_bytes() -> None:
    inbox, owner = new_owner()
    owner.receive(CODEC.encode(b"one") + b"\0")
    assert inbox.detach([]) == b"\0"


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
    inbox, owner = new_owner()
    inbox.direct = Direct()
    inbox.feed_eof()
    with pytest.raises(IncompleteFrameError, match="inside the rest after 3 of 9000000 bytes"):
        owner.take()


# --- the peer's time ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["message_timeout", "idle_timeout"])
def test_a_limit_must_be_positive(name: str) -> None:
    for bad in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"{name} must be a positive number"):
            new_owner(**{name: bad})
        with pytest.raises(ValueError, match=f"{name} must be a positive number"):
            check_seconds(name, bad)
    assert check_seconds(name, 2.5) == 2.5
    assert check_seconds(name, None) is None


def test_without_limits_there_is_no_deadline() -> None:
    inbox, owner = new_owner()
    assert not inbox.has_limits
    inbox.resume(0.0)
    owner.receive(b"\0", 1.0)
    assert inbox.deadline() is None
    inbox.check_limits(1e9, drained=True)
    assert inbox.failure is None


def test_message_timeout_counts_from_the_first_byte_to_the_last() -> None:
    inbox, owner = new_owner(message_timeout=2.0)
    inbox.resume(0.0)
    assert inbox.deadline() is None  # between two messages
    owner.receive(b"\0", 5.0)
    assert inbox.deadline() == 7.0
    owner.receive(b"\5h", 6.0)
    assert inbox.deadline() == 7.0
    owner.receive(b"ello", 6.5)
    assert inbox.deadline() is None


def test_message_timeout_starts_again_with_each_message() -> None:
    inbox, owner = new_owner(message_timeout=2.0)
    inbox.resume(0.0)
    owner.receive(b"\0", 1.0)
    owner.receive(b"\3one\0\3t", 2.5)  # its end, and the beginning of the next one
    assert inbox.deadline() == 4.5


def test_message_timeout_does_not_count_time_in_which_the_owner_does_not_receive() -> None:
    inbox, owner = new_owner(message_timeout=2.0)
    inbox.resume(0.0)
    owner.receive(b"\0", 1.0)
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
    inbox, owner = new_owner(message_timeout=2.0)
    inbox.resume(0.0)
    owner.receive(CODEC.encode(b"one") + b"\0\5he", 1.0)
    inbox.check_limits(2.9, drained=True)
    assert inbox.failure is None
    inbox.check_limits(3.0, drained=True)
    assert inbox.deadline() is None  # it has failed
    assert owner.take() == b"one"
    with pytest.raises(MessageTimeoutError, match="4 of 7 bytes") as caught:
        owner.take()
    assert (caught.value.timeout, caught.value.stream_offset) == (2.0, 5)
    assert caught.value.header == b"\0\5"


def test_a_message_whose_bytes_the_kernel_holds_is_delivered_after_its_time() -> None:
    codec = Codec.uint(4)
    inbox, owner = new_owner(codec, message_timeout=2.0)
    inbox.resume(0.0)
    wire = codec.encode(bytes(150_000))
    owner.receive(wire[:6], 1.0)
    # The owner is held up until 60.0; then the kernel has the rest.
    for start in range(6, len(wire), 10_000):
        inbox.check_limits(60.0, drained=False)
        assert inbox.failure is None
        owner.receive(wire[start : start + 10_000], 60.0)
    inbox.check_limits(60.0, drained=True)
    assert owner.take() == bytes(150_000)


def test_a_peer_that_never_pauses_is_cut_off_after_what_a_kernel_can_hold() -> None:
    codec = Codec.uint(4)
    inbox, owner = new_owner(codec, message_timeout=2.0)
    inbox.resume(0.0)
    owner.receive(codec.encode(bytes(15_000_000))[:6], 1.0)
    count = 0
    while inbox.failure is None:
        inbox.check_limits(60.0, drained=False)
        owner.receive(bytes(500_000), 60.0)
        count += 500_000
        assert count < 10_000_000
    assert count > 6_000_000
    with pytest.raises(MessageTimeoutError):
        owner.take()


def test_idle_timeout_adds_up_over_several_waits() -> None:
    inbox, owner = new_owner(idle_timeout=0.3)
    for number, begin in enumerate([0.0, 5.0, 10.0]):
        inbox.resume(begin)
        assert inbox.deadline() == pytest.approx(begin + 0.3 - 0.125 * number)
        inbox.check_limits(begin + 0.125, drained=True)
        if number < 2:
            assert inbox.failure is None
            inbox.pause(begin + 0.125)
    with pytest.raises(IdleTimeoutError) as caught:
        owner.take()
    assert (caught.value.timeout, caught.value.stream_offset) == (0.3, 0)


def test_idle_timeout_counts_only_while_the_owner_receives() -> None:
    inbox, _ = new_owner(idle_timeout=0.5)
    assert inbox.deadline() is None
    inbox.resume(0.0)
    inbox.pause(0.25)
    assert not inbox.receiving
    assert inbox.deadline() is None
    inbox.resume(8.0)
    assert inbox.receiving
    assert inbox.deadline() == 8.25


def test_a_byte_that_arrives_while_the_owner_does_not_receive_starts_nothing() -> None:
    inbox, owner = new_owner(message_timeout=2.0, idle_timeout=0.5)
    owner.receive(b"\0", 1.0)
    assert inbox.deadline() is None
    inbox.resume(9.0)
    assert inbox.deadline() == 11.0


def test_idle_timeout_starts_again_with_each_byte_and_not_inside_a_message() -> None:
    inbox, owner = new_owner(idle_timeout=0.5)
    inbox.resume(0.0)
    assert inbox.deadline() == 0.5
    owner.receive(b"\0", 0.25)
    assert inbox.deadline() is None  # inside a message
    owner.receive(b"\1x", 8.0)
    assert inbox.deadline() == 8.5
    owner.receive(b"\0\1y", 8.25)
    assert inbox.deadline() == 8.75


def test_the_limits_hold_for_a_direct_message() -> None:
    inbox, owner = new_owner(message_timeout=2.0, idle_timeout=1.0)
    inbox.resume(0.0)
    owner.receive(b"\0\x09xx", 1.0)
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
        owner.take()
    assert (caught.value.stream_offset, caught.value.header) == (7, b"\0\x09")


def test_idle_timeout_starts_after_a_direct_message() -> None:
    inbox, owner = new_owner(message_timeout=2.0, idle_timeout=1.0)
    inbox.resume(0.0)
    owner.receive(b"\0\x09xx", 1.0)
    inbox.splitter, inbox.direct = CODEC.splitter(), Direct()
    inbox.note_arrival(1.5)
    inbox.direct = None
    inbox.note_arrival(1.75)
    assert inbox.deadline() == 2.75


# --- unframed bytes -------------------------------------------------------------------------------


def test_unframe_keeps_a_failure_that_is_not_of_the_parsed_bytes() -> None:
    inbox, owner = new_owner()
    owner.receive(b"\0\2half"[:3])
    broken = ConnectionResetError("the peer is gone")
    inbox.fail(broken)
    inbox.feed_eof()
    assert inbox.unframe([]).first(3) == b"\0\2h"
    assert inbox.failure is broken
    with pytest.raises(ConnectionResetError):
        inbox.raise_failure()


def test_unframe_takes_back_the_clean_end_and_reframe_comes_to_it_again() -> None:
    inbox, owner = new_owner()
    owner.receive(CODEC.encode(b"one"))
    inbox.feed_eof()
    assert isinstance(inbox.failure, EOFError)
    unframed = inbox.unframe([owner.take()])
    assert inbox.failure is None
    assert unframed.first(5) == b"\0\3one"
    assert inbox.reframe() == [b"one"]
    assert isinstance(inbox.failure, EOFError)
    assert str(inbox.failure) == CLEAN_END


def test_reframe_returns_no_message_before_a_bad_frame_and_fails() -> None:
    inbox, owner = new_owner(Codec.uint(2, magic=b"M"))
    inbox.unframe([])
    owner.receive(b"X\0\1a")
    inbox.unframe([bytes(message) for message in owner.queue])
    assert inbox.reframe() == []
    assert isinstance(inbox.failure, InvalidFrameError)


def test_message_timeout_counts_for_unframed_bytes_and_tells_their_number() -> None:
    inbox, owner = new_owner(message_timeout=2.0, idle_timeout=50.0)
    inbox.resume(0.0)
    owner.receive(b"\0\5so", now=1.0)
    inbox.unframe([])
    inbox.expect_bytes(10)
    inbox.note_arrival(1.0)
    assert inbox.deadline() == 3.0
    inbox.check_limits(3.0, drained=True)
    with pytest.raises(MessageTimeoutError, match="4 of 10 bytes"):
        inbox.raise_failure()


def test_check_unframe_refuses_while_an_oversized_frame_is_discarded() -> None:
    inbox, owner = new_owner(Codec.uint(2, max_message_size=3), on_oversize="skip")
    inbox.check_unframe()
    owner.receive(b"\0\5to")
    with pytest.raises(RuntimeError) as caught:
        inbox.check_unframe()
    assert str(caught.value) == (
        "the bytes after the last message are discarded as a frame that is too large; "
        'set on_oversize="raise" or read_ahead=False where unframed bytes follow'
    )
    owner.receive(b"o l")
    inbox.check_unframe()


def test_seconds_left_are_never_more_than_the_limit() -> None:
    inbox = Inbox(Codec.uint(1), message_timeout=0.1)
    inbox.splitter.feed(b"\5")
    rounded = 0
    for number in range(1000):
        now = 70_000 + number * 0.137  # where the sum with 0.1 is rounded up
        inbox.resume(now)
        inbox.note_arrival(now)
        assert inbox.seconds_left(now) == 0.1
        deadline = inbox.deadline()
        assert deadline is not None
        rounded += deadline - now > 0.1
        inbox.pause(now)
        inbox._message_offset = -1
    assert rounded == 1000
    assert inbox.seconds_left(now) is None


def test_new_splitter_tells_the_observer_of_frames() -> None:
    class Counter:
        def __init__(self) -> None:
            self.frames: list[tuple[object, int]] = []

        def frame_received(self, conn: object, size: int) -> None:
            self.frames.append((conn, size))

    inbox, counter, conn = Inbox(CODEC), Counter(), object()
    observer = Observer.of(counter)
    assert observer is not None
    inbox.observe(conn, observer)
    splitter = inbox.new_splitter(7)
    assert splitter.stream_offset == 7
    assert splitter.feed(b"\0\2ab\0") == [b"ab"]
    assert counter.frames == [(conn, 4)]
