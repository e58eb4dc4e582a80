"""``framecodec demo``: it succeeds here, and fails where any one of its steps is not so."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

import framecodec
from framecodec import Codec
from framecodec._splitter_py import Splitter as PythonSplitter
from framecodec.cli import demo, main
from tests.helpers.subprocesses import finish, running


@pytest.fixture(autouse=True)
def short_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MEASURED_TIME", 0.001)


def step(letter: str) -> tuple[str, Callable[[], demo.Outcome]]:
    return next(step for step in demo.STEPS if step[0].startswith(f"({letter})"))


# --- as it is -------------------------------------------------------------------------------------


def test_the_demo_shows_its_steps_in_order_and_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "WRONG" not in output.out
    shown, position = " ".join(output.out.split()), 0
    for text in [
        "(a)",
        "sent sendall(b'hello'), sendall(b'byebye')",
        "arrived 0.1 s later recv(5) = b'hello', recv(4) = b'byeb'",
        "(b)",
        "sent one message of 1,000,000 bytes",
        "FrameSocket.recv() = 1,000,000 bytes",
        "(c)",
        "on the wire b'0005hello0006byebye'",
        "arrived recv() = b'hello', recv() = b'byebye'",
        "(d)",
        "arrived recv() = b'hello', recv() = b'byebye'",
        "(e)",
        "arrived MessageTooLargeError:",
        "4294967295",
        "arrived InvalidFrameError:",
        "(f)",
        "messages of 64 bytes a second:",
        "with the pure Python engine",
        "Every step gave the expected result.",
    ]:
        position = shown.index(text, position) + len(text)


def test_the_demo_runs_as_a_module() -> None:
    with running("-W", "error", "-m", "framecodec", "demo") as process:
        assert finish(process).endswith("Every step gave the expected result.\n")


def test_the_demo_leaves_no_thread_and_no_tracing_behind() -> None:
    threads = threading.active_count()
    assert demo.run() == 0
    assert threading.active_count() == threads
    assert not tracemalloc.is_tracing()


def test_the_demo_leaves_tracing_on_where_it_was_on() -> None:
    tracemalloc.start()
    try:
        assert demo.run([step("e")]) == 0
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("columns", "longest"), [("80", 80), ("200", 96)])
def test_the_lines_of_the_demo_fit_a_terminal(
    columns: str,
    longest: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert demo.run() == 0
    assert 60 < max(map(len, capsys.readouterr().out.splitlines())) <= longest


@pytest.mark.parametrize("accelerated", [False, True])
def test_the_last_step_measures_each_engine_that_is_in_use(
    accelerated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "ACCELERATED", accelerated)
    outcome = demo.messages_a_second()
    assert [claim.split(" gives")[0] for claim in outcome.claims] == (
        ["the compiled engine"] * accelerated + ["the pure Python engine"]
    )
    ((_, text),) = outcome.lines
    assert ("not in use here" in text) is not accelerated


# --- where a step is not so -----------------------------------------------------------------------


class LosesTheLast:
    """A splitter with a defect."""

    def __init__(self, codec: Codec) -> None:
        self._splitter = PythonSplitter(codec)

    def feed(self, data: bytes) -> list[Any]:
        return self._splitter.feed(data)[:-1]


def custom_digits(read: Callable[[bytes], int]) -> Codec:
    """Four characters that `read` takes for a length."""
    return Codec.custom(
        lambda view: (4, read(bytes(view[:4]))) if len(view) >= 4 else None,
        lambda message: str(len(message)).zfill(4).encode(),
    )


@pytest.mark.parametrize(
    ("letter", "name", "value", "complaint"),
    [
        ("a", "FIRST", b"hi", "the first recv(5) gives b'hello'"),
        ("a", "SECOND", b"later", "the recv(4) after it gives b'byeb'"),
        ("b", "LARGE_SIZE", 1000, "one recv brings only a part"),
        ("b", "UINT4", Codec.uint(2), "MessageTooLargeError"),
        ("c", "ASCII4", Codec.digits(5), "the wire carries b'0005hello0006byebye'"),
        ("c", "SECOND", b"later", "both messages arrive whole"),
        ("d", "STRUCT_I", Codec.struct("q"), "the wire carries"),
        ("e", "UINT4", Codec.uint(4, max_message_size=None), "TimeoutError"),
        ("e", "UINT4", Codec.uint(4, max_message_size=10), "with the size and the limit"),
        ("e", "ASCII4", custom_digits(int), "TimeoutError"),
        ("e", "ASCII4", custom_digits(lambda digits: 0), "' 1_0' is refused as a length"),
        ("e", "MEMORY_LIMIT", 1, "less than 1 bytes are taken"),
        ("f", "PythonSplitter", LosesTheLast, "the pure Python engine gives back every message"),
    ],
)
def test_a_step_that_is_not_so_fails_the_demo(
    letter: str,
    name: str,
    value: object,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "TIMEOUT", 0.5)
    monkeypatch.setattr(demo, name, value)
    assert demo.run([step(letter)]) == 1
    output = capsys.readouterr()
    assert complaint in " ".join(output.out.split())
    assert output.out.count("WRONG") >= 1
    assert "Every step" not in output.out
    assert output.err.startswith(f"framecodec demo: failed steps: ({letter})")


def test_the_steps_after_a_failed_one_are_still_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def explode() -> demo.Outcome:
        raise framecodec.InvalidFrameError("no frame at all")

    assert demo.run([("(x) explodes", explode), step("a")]) == 1
    output = capsys.readouterr()
    assert "WRONG    the step ended with InvalidFrameError: no frame at all" in output.out
    assert "recv(4) = b'byeb'" in output.out
    assert "Traceback" not in output.out + output.err
    assert output.err == "framecodec demo: failed steps: (x) explodes\n"


def test_a_time_out_is_the_end_of_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    def hang() -> demo.Outcome:
        raise TimeoutError("timed out")

    assert demo.run([("(x) hangs", hang), step("a")]) == 1
    assert "(a)" not in capsys.readouterr().out


def test_a_server_that_fails_fails_the_step() -> None:
    def serve(conn: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), demo._serving(serve) as address:
        demo._connect_with_small_buffer(address).close()


def test_an_early_end_without_a_reason_is_the_reason() -> None:
    with (
        pytest.raises(EOFError),
        demo._serving(lambda conn: None) as address,
        framecodec.connect(address, timeout=demo.TIMEOUT) as frames,
    ):
        frames.recv()


def test_a_server_that_is_not_there_leaves_no_socket_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):  # an open socket would be a ResourceWarning, too
        demo._connect_with_small_buffer(address)
