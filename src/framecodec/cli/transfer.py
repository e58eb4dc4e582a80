"""``framecodec send`` and ``framecodec receive``: files and folders, whole or not at all.

The conversation, in frames of ``Codec.uint(4)``. The first byte of a message is ``J`` for a JSON
object and ``D`` for bytes of a file:

    sender                                   receiver
    {"framecodec-transfer": 1, "files": n}
    {"name": "a/b", "size": 9}           ->
                                         <-  {"have": 4, "sha256": ...}   the first part is there
    {"from": 4}                          ->                               4 if that part is the same
    bytes ...                            ->
    {"end": sha256 of the whole file}    ->
                                         <-  {"done": true}
    {"bye": true}                        ->

The receiver can also answer ``{"exists": size, "sha256": ...}``; the sender then says ``{"skip":
true}`` if its file is the same. ``{"error": text}`` ends the file and the connection, from either
side. The receiver writes to a file with the ending ``.framecodec-part``. After a break it stays
there, and the next transfer continues it. The final name appears with the last byte, after the
digest was compared.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .. import Codec, FrameError, FrameSocket, connect, listen
from .common import (
    CommandError,
    add_command,
    address_name,
    console,
    escape_controls,
    read_address,
)

__all__ = ["add_commands"]

_PART = ".framecodec-part"
_BLOCK = 256 * 1024  # bytes of a frame
_CODEC = Codec.uint(4, max_message_size=1024 * 1024)
_LAST_MESSAGES = 10_000  # of a refused sender: they are read so that it can read the reason
_TIMEOUT = 600.0  # seconds; the other end may compute the digest of a large file


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands ``send`` and ``receive``."""
    sender = add_command(
        commands,
        "send",
        _send,
        help="send files and folders to framecodec receive",
        description="Send files and folders to framecodec receive. After a break, run the same "
        "command again: it continues where the other end stopped.",
    )
    sender.add_argument("files", metavar="FILE", nargs="+", help="a file or a folder")
    sender.add_argument("address", metavar="ADDRESS", type=read_address)
    receiver = add_command(
        commands,
        "receive",
        _receive,
        help="receive files and folders from framecodec send",
        description="Wait for framecodec send and write its files into a folder. Each file gets "
        "its name when all of it has arrived and its SHA-256 is right. Ends after one complete "
        "transfer.",
    )
    receiver.add_argument("address", metavar="ADDRESS", type=read_address)
    receiver.add_argument("folder", metavar="FOLDER", nargs="?", default=".", help="default: .")
    receiver.add_argument(
        "--overwrite", action="store_true", help="replace files that exist with other contents"
    )
    receiver.add_argument("--forever", action="store_true", help="wait for more senders")


class _TransferError(Exception):
    """What ends a transfer. The other end is told the text."""


class _PeerError(Exception):
    """What the other end said before it ended the transfer."""


def _notice_a_gone_peer(conn: FrameSocket[Any]) -> None:
    """Let the kernel probe a silent peer, and bound every wait."""
    conn.settimeout(_TIMEOUT)
    for name, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        with contextlib.suppress(OSError, AttributeError):
            conn.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    with contextlib.suppress(OSError):
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _tell(conn: FrameSocket[Any], **members: object) -> None:
    conn.send(b"J" + json.dumps(members).encode())


def _hear(conn: FrameSocket[Any]) -> dict[str, Any]:
    """Return the next object of the other end.

    Raises:
        _PeerError: It reports an error.
        _TransferError: It sends something else.
        EOFError: It is gone.
    """
    return _read_object(conn.recv())


def _read_object(message: bytes) -> dict[str, Any]:
    found: object = None
    if message[:1] == b"J":
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(message[1:])
    if not isinstance(found, dict):
        raise _TransferError("the other end is not framecodec send or receive")
    if "error" in found:
        raise _PeerError(str(found["error"]))
    return found


def _number(found: dict[str, Any], name: str) -> int:
    value = found.get(name)
    if type(value) is not int or value < 0:
        raise _TransferError(f"the other end sent {name}={value!r}, which is not a size")
    return value


def _digest(file: BinaryIO, size: int, advance: Callable[[int], None] | None = None) -> Any:
    """Return the SHA-256 of the next bytes of a file, at most `size`."""
    sha = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        sha.update(block)
        size -= len(block)
    return sha


# --- progress -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str, int, int], Callable[[int], None]]]:
    """Show progress on standard error while a person watches.

    Yields:
        A function that starts a file's bar: given the name, its size and the bytes that the other
        end has, it returns the function to call with the number of new bytes.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda name, size, have: lambda count: None
        return
    from rich import progress

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console(stderr=True),
    ) as bars:

        def start(name: str, size: int, have: int) -> Callable[[int], None]:
            shown = name if len(name) <= 30 else f"...{name[-27:]}"
            task = bars.add_task(escape_controls(shown), total=size, completed=have)
            return lambda count: bars.advance(task, count)

        yield start


# --- send -----------------------------------------------------------------------------------------


def _send(arguments: argparse.Namespace) -> int:
    files = list(_files(arguments.files))
    where = address_name(arguments.address)
    try:
        conn = connect(arguments.address, _CODEC)
    except OSError as error:
        raise CommandError(f"{where}: {error.strerror or error}") from None
    with conn, _bars() as bar:
        _notice_a_gone_peer(conn)
        try:
            _tell(conn, **{"framecodec-transfer": 1, "files": len(files)})
            for name, path in files:
                _send_file(conn, name, path, bar)
            _tell(conn, bye=True)
        except _TransferError as error:
            with contextlib.suppress(OSError):
                _tell(conn, error=str(error))
            raise CommandError(str(error)) from None
        except _PeerError as error:
            raise CommandError(f"the receiver refuses: {error}") from None
        except (EOFError, OSError, FrameError) as error:
            reason = _receiver_error(conn) or str(error) or type(error).__name__
            raise CommandError(
                f"the transfer to {where} broke: {reason}; run the command again to continue it"
            ) from None
    return 0


def _receiver_error(conn: FrameSocket[Any]) -> str | None:
    """Return what the receiver said before the connection broke."""
    conn_is_open = not conn.closed
    if conn_is_open:
        with contextlib.suppress(OSError, EOFError, FrameError, _TransferError):
            conn.settimeout(1)
            try:
                _hear(conn)
            except _PeerError as error:
                return str(error)
    return None


def _files(paths: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield each file to send with the name that the receiver gives it."""
    for given in paths:
        path = Path(given)
        base = path.resolve().name or "files"
        if not path.is_dir():
            with path.open("rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise CommandError(f"{given} is not a file or a folder")
            yield base, path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                found = Path(folder, name)
                if found.is_file() and not name.endswith(_PART):
                    yield "/".join((base, *found.relative_to(path).parts)), found


def _send_file(conn: FrameSocket[Any], name: str, path: Path, bar: Any) -> None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        _tell(conn, name=name, size=size)
        answer = _hear(conn)
        if "exists" in answer:
            same = answer["exists"] == size and _digest(file, size).hexdigest() == answer["sha256"]
            if not same:
                raise _TransferError(f"{name} exists there with other contents, and is kept")
            _tell(conn, skip=True)
            bar(name, size, size)
            return
        have = _number(answer, "have")
        sha = _digest(file, have)
        if have > size or sha.hexdigest() != answer.get("sha256"):
            have, sha = 0, hashlib.sha256()
        file.seek(have)
        _tell(conn, **{"from": have})
        advance = bar(name, size, have)
        left = size - have
        while left:
            block = file.read(min(left, _BLOCK))
            if not block:
                raise _TransferError(f"{name} became shorter while it was sent")
            conn.send(b"D" + block)
            sha.update(block)
            left -= len(block)
            advance(len(block))
        _tell(conn, end=sha.hexdigest())
        if not _hear(conn).get("done"):
            raise _TransferError("the receiver did not confirm the file")


# --- receive --------------------------------------------------------------------------------------


def _receive(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise CommandError(f"{folder} is not a folder")
    try:
        listener = listen(arguments.address, _CODEC)
    except OSError as error:
        where = address_name(arguments.address)
        raise CommandError(f"{where}: {error.strerror or error}") from None
    with listener:
        _note(f"listening on {address_name(listener.getsockname())}")
        for conn in listener:  # pragma: no branch (nothing closes the listener before)
            finished = _receive_and_close(conn, folder, arguments)
            if finished and not arguments.forever:
                break
    return 0


def _receive_and_close(conn: FrameSocket[Any], folder: Path, arguments: argparse.Namespace) -> bool:
    """Receive the files of one sender and close the connection; return whether it is finished.

    Raises:
        CommandError: As for `_receive_from`; with ``--forever`` it is printed instead.
    """
    with conn:
        try:
            return _receive_from(conn, folder, arguments.overwrite)
        except CommandError as error:
            if not arguments.forever:
                raise
            _note(str(error))
            return False


def _note(text: str) -> None:
    print(f"framecodec: {escape_controls(text)}", file=sys.stderr, flush=True)


def _receive_from(conn: FrameSocket[Any], folder: Path, overwrite: bool) -> bool:
    """Receive the files of one sender; return whether it is finished.

    Raises:
        CommandError: A file was refused or could not be written. The sender was told.
    """
    _notice_a_gone_peer(conn)
    reason = ""
    try:
        with _bars() as bar:
            count = _number(_hear(conn), "files")
            for _ in range(count):
                offered = _hear(conn)
                _receive_file(conn, offered, folder, overwrite, bar)
            _hear(conn)
        return True
    except _TransferError as error:
        reason = str(error)
    except _PeerError as error:
        raise CommandError(f"the sender gave up: {error}") from None
    except (EOFError, OSError, FrameError) as error:
        gone = isinstance(error, EOFError)  # also inside a frame
        text = "the sender is gone" if gone else str(error)
        _note(f"the transfer broke: {text}; waiting for the sender to continue it")
        return False
    with contextlib.suppress(OSError, EOFError, FrameError):
        _tell(conn, error=reason)
        conn.shutdown(socket.SHUT_WR)
        conn.settimeout(2)
        for _ in range(_LAST_MESSAGES):
            conn.recv()
    raise CommandError(reason)


def _receive_file(
    conn: FrameSocket[Any], offered: dict[str, Any], folder: Path, overwrite: bool, bar: Any
) -> None:
    size, target = _number(offered, "size"), _target(folder, offered.get("name"))
    name = str(offered["name"])
    if target.is_dir():
        raise _TransferError(f"{name} exists and is a folder")
    if target.exists() and not overwrite:
        with target.open("rb") as file:
            there = os.fstat(file.fileno()).st_size
            # Only a file of the same size can be the same.
            digest = _digest(file, there).hexdigest() if there == size else ""
        _tell(conn, exists=there, sha256=digest)
        if not _hear(conn).get("skip"):
            raise _TransferError(f"{name} exists; --overwrite replaces it")
        bar(name, size, size)
        return
    part = target.with_name(target.name + _PART)
    if part.is_symlink():
        raise _TransferError(f"{part.name} is a symbolic link")
    with _writing(name):
        target.parent.mkdir(parents=True, exist_ok=True)
        new = open(part, "r+b" if part.exists() else "w+b", buffering=0)  # noqa: SIM115
    with new:
        sha = _receive_part(conn, new, name, size, bar)
        with _writing(name):
            os.fsync(new.fileno())
    if sha.hexdigest() != _hear(conn).get("end"):
        with _writing(name):
            part.unlink()
        raise _TransferError(f"{name} arrived with another SHA-256 and was deleted; send it again")
    with _writing(name):
        if overwrite:
            os.replace(part, target)
        else:
            _move_to_new_name(part, target, name)
    _tell(conn, done=True)


def _receive_part(conn: FrameSocket[Any], file: Any, name: str, size: int, bar: Any) -> Any:
    """Receive the bytes of a file that are missing; return the SHA-256 of the whole file."""
    with _writing(name):
        have = os.fstat(file.fileno()).st_size
        sha = _digest(file, have)
    _tell(conn, have=have, sha256=sha.hexdigest())
    start = _number(_hear(conn), "from")
    if start not in (0, have):
        raise _TransferError(f"the sender starts {name} at byte {start}")
    if start == 0:
        sha = hashlib.sha256()
    with _writing(name):
        file.truncate(start)
        file.seek(start)
    advance = bar(name, size, start)
    left = size - start
    while left:
        message = conn.recv()
        if message[:1] != b"D":
            _read_object(message)  # raises the sender's error
            raise _TransferError(f"the sender ends {name} before its last byte")
        block = memoryview(message)[1:]
        if len(block) > left:
            raise _TransferError(f"the sender sends more bytes of {name} than it said")
        sha.update(block)
        left -= len(block)
        advance(len(block))
        with _writing(name):
            while block:
                block = block[file.write(block) :]
    return sha


@contextlib.contextmanager
def _writing(name: str) -> Iterator[None]:
    """Turn what the file system refuses into the end of the transfer."""
    try:
        yield
    except OSError as error:
        raise _TransferError(f"cannot write {name}: {error.strerror or error}") from None


def _target(folder: Path, name: object) -> Path:
    """Return the path of a file in a folder.

    Raises:
        _TransferError: The name is not a relative path inside the folder.
    """
    if not isinstance(name, str) or not name or len(name) > 4096:
        raise _TransferError(f"{str(name)[:60]!r} is not a file's name")
    parts = name.split("/")
    bad = any(part in ("", ".", "..") or "\0" in part or part.endswith(_PART) for part in parts)
    if bad or (os.name == "nt" and any(char in name for char in '\\:*?"<>|')):
        raise _TransferError(f"{name!r} is not a path inside the folder")
    target = folder.joinpath(*parts)
    # A symbolic link inside the folder can lead out of it.
    try:
        inside = target.parent.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:
        raise _TransferError(f"{name!r}: {error}") from None
    if not inside or target.is_symlink():
        raise _TransferError(f"{name!r} leads out of the folder by a symbolic link")
    return target


def _move_to_new_name(part: Path, target: Path, name: str) -> None:
    """Give a finished file its name; refuse if that exists by now."""
    try:
        os.link(part, target)  # unlike a rename, this fails if the name exists
    except FileExistsError:
        raise _TransferError(f"{name} exists by now; the file is {part.name}") from None
    except OSError:  # no hard links on this file system
        if target.exists():
            raise _TransferError(f"{name} exists by now; the file is {part.name}") from None
        os.rename(part, target)
        return
    part.unlink()
