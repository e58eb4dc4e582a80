"""``framecodec send`` and ``receive``: files arrive whole, or not under their names."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import FrameSocket
from framecodec.cli import transfer
from framecodec.cli.common import CommandError
from tests.helpers.command import Process, run, run_process, started, started_command

pytest.importorskip("rich", reason="the extra cli is not installed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and pseudo-terminals")

ANY = "127.0.0.1:0"
PART = ".framecodec-part"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    return source, target


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def tell(conn: FrameSocket, **members: object) -> None:
    conn.send(b"J" + json.dumps(members).encode())


def answer(conn: FrameSocket) -> dict[str, object]:
    message = conn.recv()
    assert message[:1] == b"J"
    found: dict[str, object] = json.loads(message[1:])
    return found


def sender(receiver: Process, files: int = 1) -> FrameSocket:
    """Return a connection to a receiver that was told how many files come."""
    host, _, port = receiver.address().rpartition(":")
    conn = framecodec.connect((host, int(port)))
    conn.settimeout(20)
    tell(conn, **{"framecodec-transfer": 1, "files": files})
    return conn


@contextlib.contextmanager
def receiving(target: Path) -> Iterator[tuple[FrameSocket, list[BaseException]]]:
    """Receive into a folder in a thread; yield the sender's end and what the receiver raises."""
    here, there = (FrameSocket(end) for end in socket.socketpair())
    raised: list[BaseException] = []

    def receive() -> None:
        try:
            with there:
                transfer._receive_from(there, target, overwrite=False)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        with here:
            here.settimeout(20)
            tell(here, **{"framecodec-transfer": 1, "files": 1})
            yield here, raised
    finally:
        thread.join(20)
        assert not thread.is_alive()


def test_files_and_folders_arrive(folders: tuple[Path, Path]) -> None:
    source, target = folders
    (source / "deep" / "er").mkdir(parents=True)
    r = random.Random(1)
    for name, size in (("a", 0), ("b", 1), ("deep/c", 700_000), ("deep/er/你好", 262_144)):
        (source / name).write_bytes(r.randbytes(size))
    single = source.parent / "single"
    single.write_bytes(b"alone")
    with started("receive", ANY, str(target)) as receiver:
        result = run_process("send", str(source), str(single), receiver.address())
        assert result == (0, b"", "")
        assert receiver.wait() == 0
    sent = {f"source/{name}": data for name, data in contents(source).items()}
    assert contents(target) == {**sent, "single": b"alone"}


def test_a_broken_transfer_is_continued(folders: tuple[Path, Path]) -> None:
    source, target = folders
    data = random.Random(2).randbytes(3_000_000)
    (source / "file").write_bytes(data)
    with started("receive", ANY, str(target)) as receiver:
        with sender(receiver) as conn:  # a sender that is killed after a third
            tell(conn, name="file", size=len(data))
            assert answer(conn)["have"] == 0
            tell(conn, **{"from": 0})
            conn.send(b"D" + data[:1_000_000])
        receiver.read_until(b"waiting for the sender")
        assert contents(target) == {"file" + PART: data[:1_000_000]}
        # What arrived is not sent again: the receiver has it already.
        with sender(receiver) as conn:
            tell(conn, name="file", size=len(data))
            assert answer(conn) == {
                "have": 1_000_000,
                "sha256": hashlib.sha256(data[:1_000_000]).hexdigest(),
            }
        assert run_process("send", str(source / "file"), receiver.address()).status == 0
        assert receiver.wait() == 0
    assert contents(target) == {"file": data}


@pytest.mark.slow
def test_a_killed_receiver_and_a_killed_sender(folders: tuple[Path, Path]) -> None:
    source, target = folders
    (source / "file").write_bytes(random.Random(3).randbytes(100_000_000))
    with started("receive", ANY, str(target)) as receiver:
        address = receiver.address()
        with started("send", str(source / "file"), address) as killed:
            part = target / f"file{PART}"
            for _ in range(5000):
                if part.exists() and part.stat().st_size > 1_000_000:
                    break
                time.sleep(0.002)
            killed.kill()
        receiver.kill()
    assert list(contents(target)) == [f"file{PART}"]
    size = part.stat().st_size
    assert size > 0
    with started("receive", ANY, str(target)) as receiver:
        assert run_process("send", str(source / "file"), receiver.address()).status == 0
        assert receiver.wait() == 0
    assert contents(target) == contents(source)


@pytest.mark.slow
def test_a_part_of_another_file_is_replaced(folders: tuple[Path, Path]) -> None:
    source, target = folders
    for part in (b"something else", b"longer than the new file" * 100):
        (source / "file").write_bytes(b"the new contents")
        (target / f"file{PART}").write_bytes(part)
        with started("receive", "--overwrite", ANY, str(target)) as receiver:
            assert run_process("send", str(source / "file"), receiver.address()).status == 0
            assert receiver.wait() == 0
        assert contents(target) == {"file": b"the new contents"}


@pytest.mark.slow
def test_a_file_that_exists_is_kept_unless_it_may_be_replaced(folders: tuple[Path, Path]) -> None:
    source, target = folders
    (source / "file").write_bytes(b"new")
    (target / "file").write_bytes(b"old")
    with started("receive", ANY, str(target)) as receiver:
        result = run_process("send", str(source / "file"), receiver.address())
        assert (result.status, result.errors.count("\n")) == (1, 1)
        assert "exists" in result.errors
        assert receiver.wait() == 1
    assert contents(target) == {"file": b"old"}
    with started("receive", "--overwrite", ANY, str(target)) as receiver:
        assert run_process("send", str(source / "file"), receiver.address()).status == 0
        assert receiver.wait() == 0
    assert contents(target) == {"file": b"new"}
    with started("receive", ANY, str(target)) as receiver:  # the same contents are no conflict
        assert run_process("send", str(source / "file"), receiver.address()).status == 0
        assert receiver.wait() == 0


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "a/../../evil", "/tmp/evil", "", ".", "..", "a//b", "a/", "x\0y", "link/x"),
        "loop/x",
        *(f"x{PART}", "file", "a" * 5000, 5, None),
    ],
)
def test_bad_names_are_refused(name: object, folders: tuple[Path, Path]) -> None:
    source, target = folders
    outside = source / "outside"
    outside.mkdir()
    (target / "link").symlink_to(outside)
    (target / "file").symlink_to(outside / "file")
    (target / "loop").symlink_to(target / "loop")
    with receiving(target) as (conn, raised):
        tell(conn, name=name, size=3)
        assert "error" in answer(conn)
    assert isinstance(raised[0], CommandError)
    assert not list(outside.iterdir())
    assert sorted(path.name for path in target.iterdir()) == ["file", "link", "loop"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["source", "target"]


def test_of_a_refused_sender_a_bounded_number_of_messages_is_read(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_LAST_MESSAGES", 3)
    here, there = (FrameSocket(end) for end in socket.socketpair())
    with here, there:
        tell(here, **{"framecodec-transfer": 1, "files": 1})
        tell(here, name="../evil", size=3)
        here.send_many([b"D1", b"D2", b"D3", b"D4"])
        with pytest.raises(CommandError, match="is not a path inside the folder"):
            transfer._receive_from(there, folders[1], overwrite=False)
        assert there.recv() == b"D4"


def test_a_wrong_digest_is_refused_and_leaves_nothing(folders: tuple[Path, Path]) -> None:
    _, target = folders
    with receiving(target) as (conn, raised):
        tell(conn, name="file", size=3)
        answer(conn)
        tell(conn, **{"from": 0})
        conn.send(b"Dabc")
        tell(conn, end="0" * 64)
        assert "SHA-256" in str(answer(conn)["error"])
    assert isinstance(raised[0], CommandError)
    assert contents(target) == {}


@pytest.mark.parametrize(
    "steps",
    [
        [b"no frame of this protocol"],
        [b"J[]"],
        [b"J" + b"[" * 100_000],
        [{"size": -1, "name": "x"}],
        [{"size": "3", "name": "x"}],
        [{"size": 3, "name": "x"}, {"from": 1}],
        [{"size": 3, "name": "x"}, {"from": 0}, b"Dabcd"],
        [{"size": 3, "name": "x"}, {"from": 0}, b"Jabc"],
        [{"size": 3, "name": "x"}, {"from": 0}, b"Dab", {"end": ""}],
    ],
)
def test_a_receiver_survives_any_sender(steps: list[object], folders: tuple[Path, Path]) -> None:
    _, target = folders
    with receiving(target) as (conn, raised):
        for step in steps:
            if isinstance(step, bytes):
                conn.send(step)
            else:
                assert isinstance(step, dict)
                tell(conn, **step)
        conn.shutdown(socket.SHUT_WR)
        with contextlib.suppress(EOFError):
            while True:
                conn.recv()
    assert isinstance(raised[0], CommandError)
    assert set(contents(target)) <= {f"x{PART}"}


def test_a_full_disk_is_reported_on_both_sides(folders: tuple[Path, Path]) -> None:
    source, target = folders
    (source / "file").write_bytes(b"x" * 3_000_000)
    limited = """
import resource, signal, sys
from framecodec.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", limited, "receive", ANY, str(target)]
    with started_command(command) as receiver:
        result = run_process("send", str(source / "file"), receiver.address())
        assert receiver.wait() == 1
    assert result.status == 1
    assert "cannot write file" in result.errors
    assert b"cannot write file" in receiver.output
    assert "file" not in contents(target)


def test_what_cannot_be_sent_is_one_line(folders: tuple[Path, Path]) -> None:
    source, target = folders
    fifo = source / "fifo"
    os.mkfifo(fifo)
    for arguments in (
        ["send", str(source / "missing"), "127.0.0.1:1"],
        ["send", str(source), "127.0.0.1:1"],  # no receiver
        ["send", "/dev/null", "127.0.0.1:1"],
        ["receive", ANY, str(target / "missing")],
        ["receive", "192.0.2.1:1", str(target)],
    ):
        result = run(*arguments)
        assert (result.status, result.output) == (1, b"")
        assert result.errors.count("\n") == 1


@pytest.mark.slow
def test_forever_takes_more_senders_and_survives_refusals(folders: tuple[Path, Path]) -> None:
    source, target = folders
    for name in ("a", "b"):
        (source / name).write_bytes(name.encode())
    with started("receive", "--forever", ANY, str(target)) as receiver:
        address = receiver.address()
        assert run_process("send", str(source / "a"), address).status == 0
        with sender(receiver) as conn:
            tell(conn, name="../x", size=1)
            assert "error" in answer(conn)
        assert run_process("send", str(source / "b"), address).status == 0
        receiver.interrupt()
        assert receiver.wait() == 130
    assert contents(target) == contents(source)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 200])
def test_a_person_sees_progress_rate_and_time_left(
    columns: int, folders: tuple[Path, Path]
) -> None:
    source, target = folders
    (source / "file").write_bytes(b"x" * 5_000_000)
    with started("receive", ANY, str(target), terminal=columns) as receiver:
        address = receiver.address()
        with started("send", str(source / "file"), address, terminal=columns) as process:
            assert process.wait() == 0
        assert receiver.wait() == 0
    for output in (process.output, receiver.output):
        plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", output).decode()
        bar = plain.rpartition("file ")[2]
        assert "5.0/5.0 MB" in bar
        assert re.search(r"B/s", bar)
        assert re.search(r"\d:\d\d:\d\d", bar)


def test_the_name_of_a_finished_file_is_never_taken_over(folders: tuple[Path, Path]) -> None:
    _, target = folders
    part, final = target / "part", target / "final"
    part.write_bytes(b"new")
    final.write_bytes(b"made meanwhile")
    with pytest.raises(transfer._TransferError, match="exists by now"):
        transfer._move_to_new_name(part, final, "final")
    assert contents(target) == {"part": b"new", "final": b"made meanwhile"}


# --- the sender, and receivers that do what a test says -------------------------------------------


@contextlib.contextmanager
def scripted(*answers: Any) -> Iterator[tuple[str, list[bytes]]]:
    """Serve one sender: an answer after each message, None to answer nothing.

    Yields:
        The address, and what was received.
    """
    received: list[bytes] = []
    with framecodec.listen(("127.0.0.1", 0), transfer._CODEC) as listener:

        def serve() -> None:
            with contextlib.suppress(EOFError, OSError), listener.accept() as conn:
                conn.settimeout(20)
                received.append(conn.recv())
                for given in answers:
                    received.append(conn.recv())
                    if callable(given):
                        given()
                    elif given is not None:
                        tell(conn, **given)
                while True:
                    received.append(conn.recv())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", received
        finally:
            thread.join(20)
            assert not thread.is_alive()


NEW = {"have": 0, "sha256": hashlib.sha256().hexdigest()}


def test_send_skips_a_file_that_exists_there_and_names_one_that_differs(
    folders: tuple[Path, Path],
) -> None:
    file = folders[0] / "file"
    file.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    with scripted({"exists": 3, "sha256": digest}) as (address, received):
        assert run("send", str(file), address) == (0, b"", "")
    assert received[-2:] == [b'J{"skip": true}', b'J{"bye": true}']
    with scripted({"exists": 4, "sha256": ""}) as (address, received):
        result = run("send", str(file), address)
    text = "file exists there with other contents, and is kept"
    assert (result.status, result.errors) == (1, f"framecodec: {text}\n")
    assert json.loads(received[-1][1:]) == {"error": text}


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ([{"error": "the disk is full"}], "the receiver refuses: the disk is full"),
        ([NEW, None, None, {"what": 1}], "the receiver did not confirm the file"),
        ([{"have": -1}], "the other end sent have=-1, which is not a size"),
    ],
)
def test_send_names_what_the_receiver_says(
    answers: list[Any], complaint: str, folders: tuple[Path, Path]
) -> None:
    file = folders[0] / "file"
    file.write_bytes(b"abc")
    with scripted(*answers) as (address, _):
        result = run("send", str(file), address)
    assert (result.status, result.errors) == (1, f"framecodec: {complaint}\n")


def test_send_names_a_file_that_becomes_shorter(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folders[0] / "file"
    file.write_bytes(b"x" * 3 * transfer._BLOCK)
    with scripted({**NEW, "have": 1}) as (address, received):  # of another file: all is sent

        def shorten(name: str, size: int, have: int) -> Any:
            assert have == 0
            os.truncate(file, transfer._BLOCK)
            return lambda count: None

        @contextlib.contextmanager
        def bars() -> Iterator[Any]:
            yield shorten

        monkeypatch.setattr(transfer, "_bars", bars)
        result = run("send", str(file), address)
    assert "file became shorter while it was sent" in result.errors
    assert b"became shorter" in received[-1]


def test_send_to_a_receiver_that_leaves_says_how_to_continue(folders: tuple[Path, Path]) -> None:
    (folders[0] / "file").write_bytes(b"abc")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            conn, _ = server.accept()
            with FrameSocket(conn, transfer._CODEC) as receiver:
                receiver.recv()
                receiver.recv()

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        result = run("send", str(folders[0] / "file"), address)
        thread.join(20)
    assert result.status == 1
    assert f"the transfer to {address} broke: " in result.errors
    assert "run the command again to continue it" in result.errors


def test_the_reason_of_a_receiver_that_has_left_is_read() -> None:
    here, there = (FrameSocket(end, transfer._CODEC) for end in socket.socketpair())
    with here:
        tell(there, error="the disk is full")
        there.close()
        assert transfer._receiver_error(here) == "the disk is full"
        assert transfer._receiver_error(here) is None
    assert transfer._receiver_error(here) is None


def test_receive_takes_files_and_names_what_it_refuses(folders: tuple[Path, Path]) -> None:
    _, target = folders
    (target / "folder").mkdir()
    (target / "same").write_bytes(b"abc")
    (target / f"link{PART}").symlink_to(target / "elsewhere")
    digest = hashlib.sha256(b"abc").hexdigest()
    with receiving(target) as (conn, raised):
        tell(conn, name="same", size=3)
        assert answer(conn) == {"exists": 3, "sha256": digest}
        tell(conn, skip=True)
        tell(conn, bye=True)
    assert raised == []
    for name, wrong, reason in (
        ("same", {"skip": False}, "same exists; --overwrite replaces it"),
        ("folder", None, "folder exists and is a folder"),
        ("link", None, f"link{PART} is a symbolic link"),
        ("loop/x", None, "loop/x"),
    ):
        with receiving(target) as (conn, raised):
            tell(conn, name=name, size=4)
            if name == "loop/x":
                conn.recv()
                tell(conn, error="enough")
            elif wrong is not None:
                answer(conn)
                tell(conn, **wrong)
            if name != "loop/x":
                assert answer(conn)["error"] == reason
        assert reason in str(raised[0]) or "the sender gave up: enough" in str(raised[0])


def test_a_finished_file_is_renamed_where_there_are_no_links(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(95, "operation not supported")

    _, target = folders
    part, final = target / "part", target / "final"
    part.write_bytes(b"new")
    monkeypatch.setattr(os, "link", refuse)
    transfer._move_to_new_name(part, final, "final")
    assert contents(target) == {"final": b"new"}
    part.write_bytes(b"newer")
    with pytest.raises(transfer._TransferError, match="final exists by now; the file is part"):
        transfer._move_to_new_name(part, final, "final")
