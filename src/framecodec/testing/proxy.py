"""A relay between a client and a server that cuts and joins the stream anew.

One thread accepts; each connection has a thread that connects to the upstream server and then
relays both directions. A socket pair that is never written to stops them all: closing one end makes
the other end readable for every selector.
"""

from __future__ import annotations

import contextlib
import logging
import random
import selectors
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeAlias, final

from .._addresses import find_place
from ..sockets import connect
from ..sockets import listen as _listen
from ..sockets.base import set_nodelay

__all__ = ["ChunkingProxy", "Direction"]

_CONNECT_TIMEOUT = 5.0  # seconds that a connection to the upstream server may take
_CLOSE_TIMEOUT = 10.0  # seconds that the threads have to end
_JOIN_WAIT = 0.02  # seconds of quiet after which a piece leaves although it is too small
_CAPACITY = 64 * 1024  # bytes of one direction that wait to be sent, at least
_PIECES_AT_ONCE = 64  # of one direction, before the other one has its turn
_RESET_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)

_logger = logging.getLogger("framecodec")


class Direction(NamedTuple):
    """One direction of one connection through a proxy."""

    connection: int
    """The number of the connection, from 1, in the order in which they were accepted."""
    sender: Literal["client", "upstream"]
    """The peer that the bytes come from."""
    client: Any
    """The client's address."""


_Observer: TypeAlias = Callable[[Direction, bytes], object]


@final
class ChunkingProxy:
    """A TCP relay that cuts and joins the stream anew, in both directions.

    Put it between a client and a server to see whether they depend on how the network cuts the
    bytes. It runs in threads from its creation to `close`, which leaving a ``with`` block calls.
    Half-closes and resets are passed on; if the upstream server refuses a connection, the client's
    is reset. The bytes themselves are not looked at, so TLS passes through.

    A piece leaves with fewer bytes than drawn only if no more bytes come for 20 ms (both ends may
    wait for each other) or the stream ends. The end of each drawn piece is always a cut.
    TCP_NODELAY is set; a receiver that is slow to read can still get several pieces at once, which
    a `delay` makes unlikely.

    Args:
        upstream: The server's address, as `framecodec.connect` takes it.
        sizes: The least and the most bytes of a piece.
        delay: Seconds between the pieces of one direction.
        seed: A number that determines the sizes of all pieces of the first, second, ... connection.
        listen: The address to listen on, as `framecodec.listen` takes it.
        observe: A function that is called with a `Direction` and the bytes of each piece before
            it is sent, and with ``b""`` before the end of that direction's stream is passed on.
            Calls do not overlap. What it raises is logged.

    Raises:
        OSError: The address to listen on is not available.
        ValueError, TypeError: An argument is invalid.
    """

    def __init__(
        self,
        upstream: Any,
        *,
        sizes: tuple[int, int],
        delay: float = 0.0,
        seed: int = 0,
        listen: Any = ("127.0.0.1", 0),
        observe: _Observer | None = None,
    ) -> None:
        self._sizes = _check_sizes(sizes)
        if not isinstance(delay, int | float):
            raise TypeError(f"delay must be a number of seconds, not {delay!r}")
        if not 0 <= delay < threading.TIMEOUT_MAX:
            raise ValueError(f"delay must be 0 or more seconds, not {delay!r}")
        if find_place(upstream, None, None).is_tls:
            raise ValueError(
                f"upstream must be an address without TLS, not {upstream!r}: the bytes of TLS pass "
                "through the proxy; write tcp://HOST:PORT"
            )
        self._upstream = upstream
        self._delay = delay
        self._seed = seed
        self._observe = observe
        self._observe_lock = threading.Lock()
        self._lock = threading.Lock()
        self._relays: set[threading.Thread] = set()
        self._accepted = 0
        self._closed = False
        self._listener = _listen(listen)
        try:
            self._stop_reader, self._stop_writer = socket.socketpair()
            try:
                self._listener.settimeout(0)
                self._thread = self._new_thread(self._accept_connections)
                self._thread.start()
            except BaseException:
                self._stop_reader.close()
                self._stop_writer.close()
                raise
        except BaseException:
            self._listener.close()
            raise

    @property
    def address(self) -> Any:
        """The address to connect to: for TCP host and port, for a Unix socket its path."""
        return self._listener.address

    @property
    def connections(self) -> int:
        """The number of connections that were accepted so far."""
        return self._accepted

    def close(self) -> None:
        """Stop listening, reset the connections that are still open, and wait for the threads.

        A thread that does not end within 10 s is reported by a `ResourceWarning`.

        Raises:
            RuntimeError: The observer called this.
        """
        with self._lock:
            if threading.current_thread() in self._relays:
                raise RuntimeError("the observer of a proxy must not close it")
            if self._closed:
                return
            self._closed = True
        self._stop_writer.close()
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        self._thread.join(_CLOSE_TIMEOUT)
        self._listener.close()
        with self._lock:
            relays = [*self._relays]
        for thread in relays:
            thread.join(max(0.0, deadline - time.monotonic()))
        running = sum(thread.is_alive() for thread in (self._thread, *relays))
        if running:
            text = f"{running} threads of {self!r} have not ended within {_CLOSE_TIMEOUT:.0f} s"
            warnings.warn(text, ResourceWarning, stacklevel=2)
        else:
            self._stop_reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        least, most = self._sizes
        state = "closed" if self._closed else f"{self.address!r}"
        return f"<ChunkingProxy {state} to {self._upstream!r}, pieces of {least} to {most} bytes>"

    # --- threads ----------------------------------------------------------------------------------

    def _new_thread(self, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        return threading.Thread(
            target=target, args=arguments, name="framecodec ChunkingProxy", daemon=True
        )

    def _accept_connections(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop_reader, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._closed:
                selector.select()
                try:
                    client, _ = self._listener.accept().detach()
                except OSError as error:
                    if not isinstance(error, BlockingIOError | ConnectionError):
                        time.sleep(0.05)  # no descriptor is left: wait until one is closed
                    continue
                self._start_relay(client)

    def _start_relay(self, client: socket.socket) -> None:
        with self._lock:
            self._accepted += 1
            thread = self._new_thread(self._relay, client, self._accepted)
            self._relays.add(thread)  # close() waits for it
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads
            _logger.warning("%r cannot start a thread", self, exc_info=True)
            with self._lock:
                self._relays.discard(thread)
            _reset(client)

    def _relay(self, client: socket.socket, number: int) -> None:
        upstream = None
        try:
            address = client.getpeername()
            upstream, _ = connect(self._upstream, timeout=_CONNECT_TIMEOUT).detach()
            pumps = [
                self._new_pump(client, upstream, Direction(number, "client", address)),
                self._new_pump(upstream, client, Direction(number, "upstream", address)),
            ]
            for sock in (client, upstream):
                sock.setblocking(False)
                set_nodelay(sock)
            _run(pumps, self._stop_reader)
            if not any(pump.broken for pump in pumps):
                for pump in pumps:
                    if pump.done:  # the target has seen the end already
                        pump.target.close()
        except OSError as error:
            _logger.info("%r has reset connection %d: %s", self, number, error)
        finally:
            for end in (client, upstream):
                if end is not None:
                    _reset(end)
            with self._lock:
                self._relays.discard(threading.current_thread())

    def _new_pump(
        self, source: socket.socket, target: socket.socket, direction: Direction
    ) -> _Pump:
        rng = random.Random(f"{self._seed} {direction.connection} {direction.sender}")
        least, most = self._sizes

        def observe(data: bytes) -> None:
            if self._observe is None:
                return
            try:
                with self._observe_lock:
                    self._observe(direction, data)
            except Exception:
                _logger.exception("the observer of %r raised", self)

        return _Pump(source, target, lambda: rng.randint(least, most), self._delay, observe)


class _Pump:
    """One direction of a connection: bytes that were read from the source and wait to be sent."""

    def __init__(
        self,
        source: socket.socket,
        target: socket.socket,
        draw_size: Callable[[], int],
        delay: float,
        observe: Callable[[bytes], None],
    ) -> None:
        self.source = source
        self.target = target
        self.draw_size = draw_size
        self.delay = delay
        self.observe = observe
        self.waiting = bytearray()
        self.piece_left = 0  # bytes up to the next cut
        self.observed = 0  # bytes of a piece that was observed and is not sent yet
        self.not_before = 0.0  # when the next piece may leave
        self.arrived = 0.0  # when the last bytes came
        self.at_end = False  # the source sends no more
        self.broken = False  # the source was reset, or the target takes no more
        self.done = False
        self.is_blocked = False  # the target's kernel buffer is full

    def wants_to_read(self) -> bool:
        return not self.at_end and not self.done and len(self.waiting) < _CAPACITY

    def read(self) -> None:
        """Read what the source has; its end and its reset are noted."""
        try:
            data = self.source.recv(_CAPACITY)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # a reset: what came before it is still passed on
            self.at_end = self.broken = True
            return
        self.waiting += data
        self.arrived = time.monotonic()
        self.at_end = not data

    def write(self) -> float | None:
        """Send pieces as far as possible; return when to try again, None if only events matter."""
        self.is_blocked = False
        for _ in range(_PIECES_AT_ONCE):
            if not self.waiting:
                if self.at_end:
                    self._finish()
                return None
            now = time.monotonic()
            if now < self.not_before:
                return self.not_before
            if not self.piece_left:
                self.piece_left = self.draw_size()
            if not self.observed and len(self.waiting) < self.piece_left and not self.at_end:
                complete = self.arrived + _JOIN_WAIT
                if now < complete:
                    return complete
            if not self._send():
                return None
            if not self.observed:
                self.not_before = now + self.delay
        return 0.0

    def _send(self) -> bool:
        piece = bytes(self.waiting[: self.observed or self.piece_left])
        if not self.observed:
            self.observed = len(piece)
            self.observe(piece)
        try:
            count = self.target.send(piece)
        except (BlockingIOError, InterruptedError):
            self.is_blocked = True
            return False
        except OSError:  # the target is gone
            self.waiting.clear()
            self.broken = self.done = True
            return False
        del self.waiting[:count]
        self.piece_left -= count
        self.observed -= count
        return True

    def stop(self) -> None:
        """Pass on an end of the source that is there already; the proxy closes now."""
        while self.wants_to_read():
            count = len(self.waiting)
            self.read()
            if len(self.waiting) == count and not self.at_end:
                return  # the source is still open
        while self.at_end and not self.done and not self.is_blocked:
            self.not_before = 0.0
            self.write()

    def _finish(self) -> None:
        self.done = True
        if not self.broken:
            self.observe(b"")
            with contextlib.suppress(OSError):  # the target may be gone already
                self.target.shutdown(socket.SHUT_WR)


def _run(pumps: list[_Pump], stop: socket.socket) -> None:
    """Relay until both directions have ended or the proxy closes."""
    with selectors.DefaultSelector() as selector:
        selector.register(stop, selectors.EVENT_READ)
        interest: dict[socket.socket, int] = {}
        while True:
            times = [when for pump in pumps if not pump.done and (when := pump.write()) is not None]
            # A reset ends the other direction too: its target is the peer that is gone.
            for pump, other in (pumps, pumps[::-1]):
                if pump.broken and pump.at_end:
                    other.broken = other.done = True
            if all(pump.done for pump in pumps):
                return
            _register(selector, pumps, interest)
            timeout = max(0.0, min(times) - time.monotonic()) if times else None
            ready = {key.fileobj: events for key, events in selector.select(timeout)}
            if stop in ready:
                for pump in pumps:
                    pump.stop()
                return
            for pump in pumps:
                if ready.get(pump.source, 0) & selectors.EVENT_READ:
                    pump.read()


def _register(
    selector: selectors.BaseSelector, pumps: list[_Pump], interest: dict[socket.socket, int]
) -> None:
    """Register each socket for what its two pumps wait for."""
    for pump, other in (pumps, pumps[::-1]):
        sock = pump.source
        events = selectors.EVENT_READ if pump.wants_to_read() else 0
        if other.is_blocked and not other.done:
            events |= selectors.EVENT_WRITE
        if events != interest.get(sock, 0):
            if sock in interest:
                selector.unregister(sock)
                del interest[sock]
            if events:
                selector.register(sock, events)
                interest[sock] = events


def _reset(sock: socket.socket) -> None:
    """Close a socket so that a TCP peer sees a reset; a closed socket stays as it is."""
    if sock.fileno() == -1:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_LINGER)
    sock.close()


def _check_sizes(sizes: tuple[int, int]) -> tuple[int, int]:
    text = "sizes must be a pair of bytes, the least and the most: (1, 7)"
    try:
        least, most = sizes
    except (TypeError, ValueError):
        raise TypeError(f"{text}, not {sizes!r}") from None
    if not isinstance(least, int) or not isinstance(most, int):
        raise TypeError(f"{text}, not {sizes!r}")
    if not 1 <= least <= most:
        raise ValueError(f"{text}, at least 1 and in this order, not {sizes!r}")
    return least, most
