"""Listen for connections, over TCP or on the path of a Unix socket."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any, TypeAlias, final

from .._inbox import check_seconds
from .._states import SocketState
from ..codec import DEFAULT_CODEC, Codec, check_codec
from .base import SocketWrapper, is_unix, locked_to_close, set_nodelay
from .connecting import (
    Address,
    host_and_port,
    new_unix_socket,
    unix_path,
)
from .connection import FrameSocket
from .waiting import READ, wait

__all__ = ["Listener", "listen"]

_Socket: TypeAlias = socket.socket  # for classes that have an attribute `socket`


def listen(
    address: Address,
    codec: Codec = DEFAULT_CODEC,
    *,
    backlog: int = 128,
    reuse_port: bool = False,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
) -> Listener:
    """Wait for connections. TCP_NODELAY is set on them.

    Args:
        address: ``(host, port)``, port 0 for any free one, or the path of a Unix socket. A socket
            file on which no process listens any more is replaced.
        codec: The shape of the frames of every connection.
        backlog: Connections that wait to be accepted before the system refuses more.
        reuse_port: Several processes may listen on the same port, and share its connections.
        message_timeout: As for `FrameSocket`.
        idle_timeout: As for `FrameSocket`.

    Returns:
        The listener.

    Raises:
        OSError: The address is not available.
        TypeError, ValueError, OverflowError: An argument is invalid.
    """
    check_codec(codec)  # now, and not with the first connection
    check_seconds("message_timeout", message_timeout)
    check_seconds("idle_timeout", idle_timeout)
    if isinstance(address, tuple):
        host, port = host_and_port(address)
        resolved = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, first = min(resolved, key=lambda entry: entry[0] != socket.AF_INET)
        bound: Any = address if len(address) == 4 else first
        sock = socket.create_server(bound, family=family, backlog=backlog, reuse_port=reuse_port)
    else:
        sock = _listen_unix(unix_path(address), backlog)
    return Listener(sock, codec, message_timeout=message_timeout, idle_timeout=idle_timeout)


@final
class Listener(SocketWrapper):
    """A listening socket that gives a `FrameSocket` for every connection; made by `listen`.

    Iterating over it gives connections until it is closed.
    """

    __slots__ = ("_address", "_codec", "_file", "_limits", "_lock")

    def __init__(
        self,
        sock: socket.socket,
        codec: Codec = DEFAULT_CODEC,
        *,
        message_timeout: float | None = None,
        idle_timeout: float | None = None,
    ) -> None:
        self._sock = sock
        self._state = SocketState.OPEN
        self._codec = codec
        self._limits: dict[str, Any] = {
            "message_timeout": message_timeout,
            "idle_timeout": idle_timeout,
        }
        self._address = sock.getsockname()
        self._lock = threading.RLock()
        self.settimeout(sock.gettimeout())
        # The file that this process made, to remove it at the end.
        self._file = _socket_file(self._address) if is_unix(sock) else None

    @property
    def address(self) -> Any:
        """The bound address, with the port that the system chose if 0 was requested."""
        return self._address

    @property
    def codec(self) -> Codec:
        """The shape of the frames."""
        return self._codec

    def accept(self) -> FrameSocket:
        """Return the next connection.

        Raises:
            TimeoutError, BlockingIOError: No connection came within the time of `settimeout`.
            OSError: The listener is closed, or the system is out of descriptors.
        """
        with self._lock:
            self._check_open()
            try:
                sock = self._accept()
            except OSError:
                self._check_open()
                raise
        try:
            sock.settimeout(socket.getdefaulttimeout())
            set_nodelay(sock)
            return FrameSocket(sock, self._codec, **self._limits)
        except BaseException:
            sock.close()
            raise

    def _accept(self) -> _Socket:
        # Python's own time-out would poll a Unix socket over and over until the time is up: after
        # the shutdown() by which close() wakes this thread, the socket stays readable.
        deadline = monotonic() + self._timeout if self._timeout else None
        while True:
            try:
                return self._sock.accept()[0]
            except BlockingIOError:
                if not self._timeout:
                    raise
            if not wait(self._sock, READ, deadline):
                raise TimeoutError(f"no connection within {self._timeout:g} s")
            self._check_open()

    def __iter__(self) -> Iterator[FrameSocket]:
        while True:
            try:
                yield self.accept()
            except OSError as error:
                if self.closed:
                    return
                # The peer left before it was accepted: the next one may be there.
                if error.errno not in (errno.ECONNABORTED, errno.EPROTO):
                    raise

    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that `accept` may take.

        Args:
            timeout: Seconds; None waits for ever, 0 does not wait.
        """
        self._sock.settimeout(timeout)  # which raises if it is invalid
        if timeout is not None:
            self._sock.setblocking(False)
        self._timeout = timeout

    def close(self) -> None:
        """Stop listening; remove the file of a Unix socket. A thread in `accept` is woken."""
        if self.closed:
            return
        self._state = SocketState.CLOSED
        with locked_to_close(self._lock, wake=self._shutdown):
            try:
                if self._file is not None and self._file == _socket_file(self._address):
                    os.unlink(self._address)
            finally:
                self._sock.close()

    def _shutdown(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)

    def __repr__(self) -> str:
        state = "closed" if self.closed else repr(self._address)
        return f"<Listener {state}, {self._codec!r}>"


# --- files of Unix sockets ------------------------------------------------------------------------


def _listen_unix(path: str | bytes, backlog: int) -> socket.socket:
    sock = new_unix_socket(path)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_abandoned(path: str | bytes) -> bool:
    """Return whether the file is a socket on which no process listens."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    # A socket of another kind, so that a process that listens gets no connection.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _socket_file(path: str | bytes) -> tuple[int, int, int] | None:
    """Return (pid, device, inode) of the socket file, or None if there is no file."""
    if not path or path[0] in ("\0", 0):  # unnamed, or in Linux's abstract name space
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return os.getpid(), status.st_dev, status.st_ino
