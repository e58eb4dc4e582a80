"""What the reference expects of a splitter after each call of a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from framecodec import Codec, FrameError, IncompleteFrameError
from tests.helpers.reference_parser import Outcome, expect
from tests.helpers.reference_resync import Trace, expect_resync, is_marked

if TYPE_CHECKING:
    from tests.fuzz.orders import Program

__all__ = ["Model"]


class Model:
    """What the reference expects of a splitter after each byte.

    A leg is the part of the stream that is read with one codec. `base` is where it begins; the
    positions in outcomes count from there.
    """

    def __init__(self, codec: Codec, program: Program) -> None:
        self.program = program
        self.taken = 0  # bytes
        self.failed: type[BaseException] | None = None  # the sticky error
        self.attributes: dict[str, Any] = {}  # of it
        self.detached = False
        self.ended = False  # feed_eof() came while messages were undelivered
        self.complete = True  # the last call went on until bytes or an error ended it
        self.first = 0  # of the leg's messages, the first one that the last call returned
        self.resyncs_before = self.discarded_before = 0  # in earlier legs
        self.last_bad: tuple[type[BaseException], int] | None = None
        self.next: tuple[Codec, int] | None = None  # the next leg, which begins after padding
        self.begin(codec, 0)

    def begin(self, codec: Codec, base: int, searching: bool = False) -> None:
        """Begin a leg."""
        self.codec, self.base, self.searching_first = codec, base, searching
        self.done = 0  # frames delivered or discarded
        self.position = 0  # of the pending frame, in the leg
        self.count = 0  # messages of the leg
        self.in_padding = False
        self.resyncs = self.discarded = 0  # of the leg
        self.trace: Trace | None = None
        self.raw_outcome: Outcome | None = None
        self.next = None
        program = self.program
        if program.resync:
            self.trace_now()
        else:
            self.whole = self.outcome(len(program.stream))

    @property
    def offset(self) -> int:
        return self.base + self.position

    @property
    def pending(self) -> int:
        return self.taken - self.offset

    def outcome(self, stop: int) -> Outcome:
        """Return the outcome of the leg if the stream ends there."""
        program = self.program
        stream = program.stream[self.base : stop]
        return expect(self.codec, stream, raw=program.raw, skip=program.skip)

    def trace_now(self) -> Trace:
        program = self.program
        stream = program.stream[self.base : self.taken]
        self.trace = expect_resync(
            self.codec,
            stream,
            raw=program.raw,
            skip=program.skip,
            searching=self.searching_first,
        )
        return self.trace

    @property
    def searching(self) -> bool:
        return self.trace is not None and self.trace.searching and self.complete

    def fail(self, error: type[BaseException], attributes: dict[str, Any]) -> None:
        self.failed, self.attributes = error, dict(attributes)
        if "stream_offset" in attributes:
            self.attributes["stream_offset"] += self.base + self.program.start

    # --- calls

    def take(self, size: int) -> list[Any] | type[BaseException]:
        """Return the messages, or the type of error, that a call with `size` bytes must give."""
        self.taken += size
        if size:
            self.ended = False
        return self.advance()

    def advance(self) -> list[Any] | type[BaseException]:
        if self.next is not None and self.taken >= self.next[1]:
            following = self.next
            self.close_leg()
            self.begin(*following)
        self.first = self.count
        if self.next is not None:  # these bytes are padding
            messages: list[Any] = []
        elif self.program.resync:
            messages = self.advance_trace(self.trace_now())
        else:
            messages = self.advance_outcome(self.whole)
        if self.failed is None and self.ended and not messages:
            if self.searching:
                self.end_search()
            elif self.pending:
                self.fail(*self.incomplete())
        return self.failed if self.failed is not None and not messages else messages

    def advance_outcome(self, whole: Outcome) -> list[Any]:
        steps, taken = whole.steps, self.taken - self.base
        while self.done < len(steps) and steps[self.done][0] <= taken:
            _, stop, count = steps[self.done]
            if self.program.one and self.count > self.first and not self.belongs_to_last(stop):
                break
            self.in_padding = stop == self.position and not self.program.raw
            self.position, self.count = stop, count
            self.done += 1
        self.complete = not self.program.one or self.count == self.first
        decided = whole.decided
        if decided is not None and decided <= taken and self.complete:
            assert whole.error is not None
            self.fail(whole.error, whole.attributes)
        return whole.messages[self.first : self.count]

    def belongs_to_last(self, stop: int) -> bool:
        """Whether the bytes up to a place are padding or the remainder of an end mark."""
        if self.in_padding:
            return True
        has = self.codec.parameters
        ends = [has["end"], *has["more_ends"]] if self.codec.kind == "delimiter" else []
        begun = [end for end in ends if any(end != more and more.startswith(end) for more in ends)]
        stream = self.program.stream[self.base : self.base + stop]
        rest = stream[self.position :]
        before = stream[: self.position]
        return any(before.endswith(end) and end + rest in ends for end in begun)

    def advance_trace(self, trace: Trace) -> list[Any]:
        state = trace.last
        if self.program.one:
            found = [index for index, state in enumerate(trace.states) if state.count > self.count]
            if found:
                state = trace.states[found[0]]
                self.position, self.in_padding = state.offset, state.in_padding
                after = trace.states[found[0] + 1 :]
                if after and self.belongs_to_last(after[0].offset):
                    state = after[0]
        self.position, self.count, self.in_padding = state.offset, state.count, state.in_padding
        self.resyncs, self.discarded = state.resyncs, state.discarded
        if self.resyncs:
            error, offset = trace.bad[self.resyncs - 1]
            self.last_bad = error, self.base + offset + self.program.start
        self.complete = not self.program.one or self.count == self.first
        error_now = trace.error
        if self.complete and error_now and not issubclass(error_now, IncompleteFrameError):
            self.fail(error_now, trace.attributes)
        return trace.messages[self.first : self.count]

    def has_message(self) -> bool:
        """Whether a whole message is undelivered."""
        if self.next is not None or not self.program.one:
            return False
        if self.program.resync:
            return len(self.trace_now().messages) > self.count
        taken = self.taken - self.base
        return any(
            certain <= taken and count > self.count for certain, _, count in self.whole.steps
        )

    def incomplete(self) -> tuple[type[BaseException], dict[str, Any]]:
        """Return the error of a stream that ends here, inside a frame."""
        if self.program.resync:
            return IncompleteFrameError, self.trace_now().attributes
        return IncompleteFrameError, self.outcome(self.taken).attributes

    def end(self) -> type[BaseException] | None:
        """Return the error that feed_eof() must raise, or None."""
        if self.has_message():
            self.ended = True
            return None
        before = vars(self).copy()
        messages = self.advance()
        assert isinstance(messages, type) or not messages
        if self.failed and not before["complete"] and not issubclass(self.failed, FrameError):
            failed = self.failed  # it only looked at what is undelivered
            vars(self).update(before)
            return failed
        if self.failed is None and self.searching:
            self.end_search()
        elif self.failed is None and self.pending:
            self.fail(*self.incomplete())
        return self.failed

    def end_search(self) -> None:
        """Discard all bytes: the stream has ended before a mark."""
        self.discarded += self.pending
        self.close_leg()
        self.begin(self.codec, self.taken, searching=True)

    def close_leg(self) -> None:
        self.resyncs_before += self.resyncs
        self.discarded_before += self.discarded

    def unread(self) -> bytes:
        """Return what detach() must return."""
        if not self.complete and not self.in_padding:  # nothing has looked at the bytes
            return self.program.stream[self.offset : self.taken]
        if self.program.resync:
            return self.trace_now().unread
        return self.outcome(self.taken).unread

    def switch(self, codec: Codec) -> list[Any] | type[BaseException]:
        """Return the messages, or the type of error, that switch() must give."""
        if self.in_padding:
            if self.program.resync and not is_marked(codec):
                return ValueError
            self.failed, self.ended = None, False
            self.next = codec, self.padding_stop()
            return self.advance()
        if self.pending and not self.unread():  # inside a frame that is skipped
            return ValueError
        if self.program.resync and not is_marked(codec):
            return ValueError
        self.failed, self.ended = None, False
        self.close_leg()
        self.begin(codec, self.offset)
        return self.advance()

    def padding_stop(self) -> int:
        if self.next is not None:
            return self.next[1]
        needed = self.incomplete()[1]["needed"]
        assert needed is not None
        return self.offset + int(needed)

    def frames(self) -> list[tuple[bytes, int]]:
        """Return the frames of the last call's messages, and where each ends, as far as known.

        The frame of the last one is missing where its padding has not come; after bad frames, all.
        """
        if self.program.resync:
            return []
        if self.raw_outcome is None:
            stream = self.program.stream[self.base :]
            self.raw_outcome = expect(self.codec, stream, raw=True, skip=self.program.skip)
        found = self.raw_outcome
        stops: dict[int, int] = {}
        for _, stop, count in found.steps:
            stops.setdefault(count, self.base + stop)
        numbers = range(self.first, min(self.count, len(found.messages)))
        return [(found.messages[number], stops[number + 1]) for number in numbers]
