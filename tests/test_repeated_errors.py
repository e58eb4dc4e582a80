"""An error that several threads raise: each raises a separate object."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError, FrameSocket, IncompleteFrameError, InvalidFrameError
from framecodec._repeated_errors import for_this_thread
from tests.helpers.fault_injection import TIMEOUT, stream_pair

CODEC = Codec.uint(2, magic=b"M", trailer=b"T")


def raised_in_another_thread(call: Callable[[], object]) -> BaseException:
    """Return what a call raises in another thread."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(TIMEOUT)
    (error,) = errors
    return error


def check_copy(copy: BaseException, error: BaseException) -> None:
    assert copy is not error
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.args == error.args
    assert vars(copy) == vars(error)
    assert copy.__cause__ is error.__cause__
    assert copy.__traceback__ is not None


def test_splitter_raises_a_copy_of_its_error_in_another_thread(engine: ModuleType) -> None:
    splitter = engine.Splitter(CODEC)
    with pytest.raises(InvalidFrameError) as caught:
        splitter.feed(b"not a frame")
    error = caught.value
    traceback = error.__traceback__
    calls: list[Callable[[], object]] = [
        lambda: splitter.feed(b""),
        lambda: splitter.feed(bytearray(b"x")),
        lambda: splitter.buffer_updated(0),
        splitter.get_buffer,
        splitter.feed_eof,
    ]
    for call in calls:
        check_copy(raised_in_another_thread(call), error)
        # The traceback of the thread that handles the error stays.
        assert error.__traceback__ is traceback
    for call in calls:
        with pytest.raises(InvalidFrameError) as again:
            call()
        assert again.value is error is splitter.error
    assert splitter.detach() == b"not a frame"


def test_splitter_that_ended_inside_a_frame_raises_a_copy(engine: ModuleType) -> None:
    splitter = engine.Splitter(CODEC)
    splitter.feed(b"M\0")
    with pytest.raises(IncompleteFrameError) as caught:
        splitter.feed_eof()
    copy = raised_in_another_thread(splitter.feed_eof)
    check_copy(copy, caught.value)
    assert isinstance(copy, IncompleteFrameError)
    assert copy.received == 2


@pytest.mark.usefixtures("engine_in_use")
@pytest.mark.parametrize("name", ["recv", "recv_many", "__iter__"])
def test_connection_raises_a_copy_of_its_failure_in_another_thread(name: str) -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, CODEC) as conn:
        conn.settimeout(TIMEOUT)
        peer.sendall(b"not a frame")
        with pytest.raises(InvalidFrameError) as caught:
            conn.recv()

        def call() -> Any:
            return list(conn) if name == "__iter__" else getattr(conn, name)()

        check_copy(raised_in_another_thread(call), caught.value)
        with pytest.raises(InvalidFrameError) as again:
            call()
        assert again.value is caught.value


@pytest.mark.parametrize(
    "error",
    [
        EOFError("the end"),
        ConnectionResetError(104, "reset"),
        FileNotFoundError(2, "missing", "name"),
        KeyError(1, 2),
        UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"),
        FrameError("bad", stream_offset=7, header=b"h"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_copies_are_equal(error: Exception) -> None:
    error.add_note("a note")
    error.__cause__ = ValueError("why")
    copy = for_this_thread(error, threading.get_ident() + 1)
    assert copy is not error
    assert (type(copy), copy.args, str(copy)) == (type(error), error.args, str(error))
    assert (vars(copy), copy.__cause__) == (vars(error), error.__cause__)


def test_an_error_that_cannot_be_copied_is_raised_itself() -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(one)

    class Other(Exception):
        def __reduce__(self) -> Any:
            return ValueError, ()

    for error in (Odd(1, 2), Other()):
        assert for_this_thread(error, threading.get_ident() + 1) is error
        assert for_this_thread(error, 0) is error
