"""Listen for connections, over TCP or on the path of a Unix socket."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeAlias, final

from .._addresses import Address, find_place, host_and_port, unix_path
from .._locks import call_locked
from .._message_types import MessageT, OfMessages
from .._options import OnInvalid, OnOversize, check_options, check_server_context
from .._peers import name_address, peer_name
from .._states import SocketState
from ..codec import DEFAULT_CODEC, Codec, check_codec
from .accept_pause import AcceptPause
from .base import SocketWrapper, check_keepalive, close_locked, is_unix, prepare
from .connecting import new_unix_socket
from .connection import FrameSocket
from .waiting import READ, wait

if TYPE_CHECKING:
    import ssl as ssl_module

__all__ = ["Listener", "listen", "open_listening"]

# Iterating over a listener continues after these errors of accept(): the process or the system is
# out of descriptors or memory, or the client has left.
_PASSING = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ECONNABORTED,
    errno.EPROTO,
)

# What getpeername() raises of a client that has left; EINVAL on macOS.
_NOT_CONNECTED = (errno.ENOTCONN, errno.EINVAL)

_Socket: TypeAlias = socket.socket  # for classes that have an attribute `socket`


def listen(
    address: Address,
    port: int | Codec[MessageT] | None = None,
    *,
    codec: Codec[MessageT] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    keepalive: bool | float | None = None,
    backlog: int = 128,
    reuse_port: bool = False,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
) -> Listener[MessageT]:
    """Wait for connections. TCP_NODELAY is set on them.

    Args:
        address: ``(host, port)``, port 0 for any free one; a host, with `port`; the path of a Unix
            socket; or a URL: ``tcp://host:port``, ``tls://host:port``, ``unix:path``. A socket
            file on which no process listens any more is replaced.
        port: A port, where `address` is a host; or the codec.
        codec: The shape of the frames of every connection; ``Codec.uint(4)`` where none is given.
        ssl: A context with the server's certificate: connections are encrypted. The handshake is
            part of a connection's first call that receives or sends, never of `Listener.accept`.
        keepalive: True, or seconds of quiet before TCP's first probe.
        backlog: Connections that wait to be accepted before the system refuses more.
        reuse_port: Several processes may listen on the same port, and share its connections.
        message_timeout: As for `FrameSocket`.
        idle_timeout: As for `FrameSocket`.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        observer: As for `FrameSocket`.

    Returns:
        The listener.

    Raises:
        OSError: The address is not available.
        TypeError, ValueError, OverflowError: An argument is invalid.
    """
    place = find_place(address, port, codec)
    check_server_context(ssl, address, place.is_tls)
    check_keepalive(keepalive)
    options = check_options(
        place.codec,
        message_timeout=message_timeout,
        idle_timeout=idle_timeout,
        on_oversize=on_oversize,
        on_invalid=on_invalid,
        observer=observer,
    )
    sock = open_listening(place.address, backlog=backlog, reuse_port=reuse_port)
    return Listener(sock, place.codec, ssl=ssl, keepalive=keepalive, **options)


def open_listening(address: Any, *, backlog: int, reuse_port: bool) -> socket.socket:
    """Return a listening socket for the address of a `Place`.

    Raises:
        OSError: The address is not available; the error names it.
    """
    try:
        if not isinstance(address, tuple):
            return _listen_unix(unix_path(address), backlog)
        host, port = host_and_port(address)
        resolved = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, first = min(resolved, key=lambda entry: entry[0] != socket.AF_INET)
        bound: Any = address if len(address) == 4 else first
        return socket.create_server(bound, family=family, backlog=backlog, reuse_port=reuse_port)
    except OSError as error:
        name_address(error, peer_name(address, None))
        raise


@final
class Listener(OfMessages[MessageT], SocketWrapper):
    """A listening socket that gives a `FrameSocket` for every connection; made by `listen`.

    Iterating over it gives connections until it is closed. An iteration continues after a passing
    failure (no free descriptor, no memory, a client that left before it was accepted): it is logged
    as a WARNING, and the next attempt comes after a pause, of 1 s at most.
    """

    __slots__ = ("_address", "_codec", "_file", "_keepalive", "_lock", "_options", "_ssl")

    def __init__(
        self,
        sock: socket.socket,
        codec: Codec[MessageT] = DEFAULT_CODEC,  # type: ignore[assignment]
        *,
        ssl: ssl_module.SSLContext | None = None,
        keepalive: bool | float | None = None,
        **options: Any,
    ) -> None:
        check_codec(codec)
        self._sock = sock
        self._state = SocketState.OPEN
        self._codec = codec
        self._ssl = ssl
        self._keepalive = keepalive
        self._options = options
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
    def codec(self) -> Codec[MessageT]:
        """The shape of the frames."""
        return self._codec

    def accept(self) -> FrameSocket[MessageT]:
        """Return the next connection.

        Raises:
            TimeoutError, BlockingIOError: No connection came within the time of `settimeout`.
            OSError: The listener is closed, or the system is out of descriptors.
        """
        while True:
            sock = call_locked(self._lock, self._accept_open)
            try:
                prepare(sock, self._keepalive)
                if self._ssl is not None:
                    tls = self._wrap(sock, self._ssl)
                    if tls is None:
                        sock.close()
                        continue
                    sock = tls
                sock.settimeout(socket.getdefaulttimeout())
                return FrameSocket(sock, self._codec, **self._options)
            except BaseException:
                sock.close()
                raise

    def _wrap(self, sock: _Socket, context: ssl_module.SSLContext) -> ssl_module.SSLSocket | None:
        """Return a TLS socket before its handshake; None if the client has left."""
        try:
            sock.getpeername()  # after its failure, wrap_socket() would leave a socket open
            tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError as error:
            if isinstance(error, ConnectionError) or error.errno in _NOT_CONNECTED:
                return None
            raise
        if tls._sslobj is None:  # type: ignore[attr-defined]  # pragma: no cover (it has just left)
            tls.close()
            return None
        return tls

    def _accept_open(self) -> socket.socket:
        self._check_open()
        try:
            return self._accept()
        except OSError:
            self._check_open()
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

    def __iter__(self) -> Iterator[FrameSocket[MessageT]]:
        pause = AcceptPause()
        while True:
            try:
                conn = self.accept()
            except OSError as error:
                if self.closed:
                    return
                if error.errno not in _PASSING:
                    raise
                seconds = pause.after(error, peer_name(self._address, None))
                assert seconds is not None  # of these errors none ends the listening
                sleep(seconds)
            else:
                pause.reset()
                yield conn
                del conn  # an iterator that waits does not keep it

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
        close_locked((self._lock,), self._shutdown, self._close)

    def _close(self, _were_free: bool) -> None:
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
