"""``framecodec listen`` and ``framecodec connect``: lines in, messages out.

A thread reads the typed lines and one thread for each connection prints its messages. The main
thread takes lines and ends from a queue: so Ctrl-C ends it at any time, and a peer that leaves ends
`connect` although a read of standard input cannot be interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .. import Codec, DatagramSocket, FrameError, FramePipe, FrameSocket, listen
from .common import (
    SIGNALS_WAIT,
    CommandError,
    add_codec,
    add_command,
    address_name,
    escape_controls,
    open_socket,
    parse_hex,
    read_address,
    readable,
)

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands ``listen`` and ``connect``."""
    listener = add_command(
        commands,
        "listen",
        _listen,
        help="a framed server in the terminal: lines out, messages in",
        description="Accept connections. Each line that is typed is sent to all of them as a "
        "message, each message that arrives is printed as a line. Ctrl-D in a terminal and Ctrl-C "
        "end it.",
    )
    connector = add_command(
        commands,
        "connect",
        _connect,
        help="a framed client in the terminal: lines out, messages in",
        description="Connect. Each line that is typed is sent as a message, each message that "
        "arrives is printed as a line. Ctrl-D ends sending; the command ends when the peer does.",
    )
    for parser in (listener, connector):
        # With --udp the default is no codec: a datagram is a message.
        add_codec(parser, default="u32be")
        parser.set_defaults(codec=None)
        parser.add_argument(
            "--hex", action="store_true", help="lines are hexadecimal, in both directions"
        )
        parser.add_argument(
            "--udp", action="store_true", help="datagrams; without --codec each is a message"
        )
    listener.add_argument("--echo", action="store_true", help="send every message back")
    listener.add_argument("--once", action="store_true", help="end after the first connection")
    listener.add_argument("--cert", metavar="FILE", help="TLS with this certificate (PEM)")
    listener.add_argument("--key", metavar="FILE", help="its private key, if not in the same file")
    listener.add_argument("address", metavar="ADDRESS", type=read_address)
    connector.add_argument("--once", action="store_true", help="end after the first message")
    connector.add_argument("--tls", action="store_true", help="connect with TLS")
    connector.add_argument("--ca", metavar="FILE", help="TLS; trust these certificates (PEM)")
    connector.add_argument(
        "--insecure", action="store_true", help="TLS; do not verify the certificate"
    )
    connector.add_argument(
        "--pipe", metavar="COMMAND", help="start a command and talk to its input and output"
    )
    connector.add_argument("address", metavar="ADDRESS", type=read_address, nargs="?")


class _Receiver(Protocol):
    """What lines are sent to."""

    def send(self, message: Any, /) -> None:
        """Send a message."""


class _Connection(_Receiver, Protocol):
    """What is used of a connection."""

    def recv(self) -> Any:
        """Return the next message; raise EOFError at the end."""


# --- what both commands do ------------------------------------------------------------------------

_LAST_REPLIES = 1.0  # seconds that replies to the last datagram may take
_LAST_WAIT = 2.0  # seconds that a command may take to end, before and after it is terminated

# What the main thread is told: a line, the end of the lines (None), or the end of a connection.
_Event = tuple[str, Any]


class _Screen:
    """Standard output, shared by threads."""

    def __init__(self, *, as_hex: bool) -> None:
        self._lock = threading.Lock()
        self._as_hex = as_hex
        self.last = time.monotonic()  # when the last message was printed

    def message(self, message: object) -> None:
        """Print a message."""
        is_hex = self._as_hex and isinstance(message, bytes)
        text = message.hex() if is_hex else readable(message)  # type: ignore[attr-defined]
        self.last = time.monotonic()
        with self._lock:
            if sys.stdout is not None:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()

    def close(self) -> None:
        """Let no thread write any more.

        CPython aborts when it ends while a daemon thread has the lock of a standard stream.
        """
        self._lock.acquire(timeout=1)

    def note(self, text: str) -> None:
        """Print what is not a message, to standard error."""
        with self._lock:
            print(f"framecodec: {escape_controls(text)}", file=sys.stderr, flush=True)


def _read_lines(put: Callable[[_Event], None]) -> None:
    """Read standard input in a thread that nothing waits for."""

    def read() -> None:
        unfinished = b""
        # os.read: a thread that waits in a buffered reader would block the interpreter's exit.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            number = sys.stdin.fileno()
            while chunk := os.read(number, 65536):
                *lines, unfinished = (unfinished + chunk).split(b"\n")
                for line in lines:
                    put(("line", line))
        if unfinished:
            put(("line", unfinished))
        put(("end of lines", None))

    threading.Thread(target=read, daemon=True).start()


class _Events:
    """What the main thread waits for: lines, ends, and Ctrl-C.

    The handler of Ctrl-C puts an event into the queue, whose `put` is reentrant. It raises only
    while the main thread sends, which can block. Elsewhere the exception could come out of a
    finalizer or of a callback of a weak reference, where CPython prints a traceback and drops it.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self.put: Callable[[_Event], None] = self._queue.put
        self._sending = False

    def take(self) -> _Event:
        """Return the next event; raise KeyboardInterrupt after Ctrl-C."""
        while True:
            with contextlib.suppress(queue.Empty):
                event = self._queue.get(timeout=SIGNALS_WAIT)
                if event[0] == "interrupt":
                    raise KeyboardInterrupt
                return event

    @contextlib.contextmanager
    def with_interrupts(self) -> Iterator[None]:
        """Make an event of Ctrl-C."""

        def interrupt(*_: object) -> None:
            self.put(("interrupt", None))
            if self._sending:
                raise KeyboardInterrupt

        previous = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Let Ctrl-C end what may block."""
        self._sending = True
        try:
            yield
        finally:
            self._sending = False


def _send_line(
    conn: _Receiver, line: bytes, arguments: argparse.Namespace, screen: _Screen
) -> None:
    """Send a line; print a note if it is not a possible message."""
    try:
        conn.send(parse_hex(line.decode("ascii", "replace")) if arguments.hex else line)
    except (FrameError, ValueError) as error:
        screen.note(f"not sent: {error}")


def _receive(
    conn: _Connection, screen: _Screen, put: Callable[[_Event], None], *, echo: bool, once: bool
) -> None:
    """Print the messages of a connection until its end; report the end."""
    error: BaseException | None = None
    try:
        while True:
            message = conn.recv()
            screen.message(message)
            if echo:
                conn.send(message)
            if once:
                break
    except BrokenPipeError as broken:
        error = None if _stdout_is_closed() else broken
        if error is None:
            put(("output closed", None))
    except FrameError as bad:
        error = bad
    except EOFError:
        pass
    except (OSError, ValueError) as failed:  # ValueError: closed by the main thread
        error = failed
    put(("end", (conn, error)))


def _stdin_is_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def _stdout_is_closed() -> bool:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        return True
    return False


# --- connect --------------------------------------------------------------------------------------


def _connect(arguments: argparse.Namespace) -> int:
    if (arguments.pipe is None) == (arguments.address is None):
        raise CommandError("give either an ADDRESS or --pipe COMMAND", 2)
    screen = _Screen(as_hex=arguments.hex)
    events = _Events()
    opened = _opened(arguments)
    with contextlib.closing(screen), opened as (conn, end_sending), events.with_interrupts():
        threading.Thread(
            target=_receive,
            args=(conn, screen, events.put),
            kwargs={"echo": False, "once": arguments.once},
            daemon=True,
        ).start()
        _read_lines(events.put)
        while True:
            kind, value = events.take()
            if kind == "line":
                with events.sending():
                    _send_line(conn, value, arguments, screen)
            elif kind == "end of lines":
                if not _end_sending(end_sending) and not arguments.once:
                    _wait_for_last_replies(events, screen)
            elif kind == "output closed":
                raise BrokenPipeError
            elif value[1] is not None:
                raise value[1]
            else:
                return 0


def _end_sending(end_sending: Callable[[], None]) -> bool:
    """End sending; return whether the peer is told, so that it can end the conversation."""
    try:
        end_sending()
    except (OSError, NotImplementedError, ValueError):  # over TLS, or with datagrams
        return False
    return True


def _wait_for_last_replies(events: _Events, screen: _Screen) -> None:
    """Put an end into the queue when no message has arrived for a while, at once in a terminal."""
    pause = 0.0 if _stdin_is_terminal() else _LAST_REPLIES

    def wait() -> None:
        began = time.monotonic()
        while (left := max(began, screen.last) + pause - time.monotonic()) > 0:
            time.sleep(left)
        events.put(("end", (None, None)))

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[tuple[_Connection, Callable[[], None]]]:
    """Open what `connect` talks to; yield it and the function that ends sending."""
    codec = arguments.codec
    if arguments.pipe is not None:
        with _Command(arguments.pipe, codec or Codec.uint(4)) as command:
            yield command, command.end_sending
        return
    if arguments.udp:
        with _datagram_socket(arguments.address, codec, listening=False) as datagrams:
            yield datagrams, _no_end
        return
    with _stream_socket(arguments) as sock, FrameSocket(sock, codec or Codec.uint(4)) as conn:
        yield conn, lambda: conn.shutdown(socket.SHUT_WR)


def _stream_socket(arguments: argparse.Namespace) -> socket.socket:
    sock = open_socket(arguments.address)
    if not (arguments.tls or arguments.ca or arguments.insecure):
        return sock
    try:
        context = ssl.create_default_context(cafile=arguments.ca)
        if arguments.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        is_tcp = isinstance(arguments.address, tuple)
        host = arguments.address[0] if is_tcp else "localhost"
        return context.wrap_socket(sock, server_hostname=host)
    except OSError as error:
        sock.close()
        where = address_name(arguments.address)
        raise CommandError(f"{where}: no TLS: {error.strerror or error}") from None


def _no_end() -> None:
    raise NotImplementedError("no datagram says that it is the last one")


class _Command:
    """A process and the frames on its standard input and output."""

    def __init__(self, command: str, codec: Codec[Any]) -> None:
        try:
            words = shlex.split(command)
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        except (OSError, ValueError, IndexError) as error:
            raise CommandError(f"cannot start {command!r}: {error}") from None
        self._pipe = FramePipe(self._process.stdout, self._process.stdin, codec)
        self.send = self._pipe.send
        self.recv = self._pipe.recv

    def __enter__(self) -> _Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_sending()
        try:
            self._process.wait(_LAST_WAIT)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(_LAST_WAIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._pipe.close()

    def end_sending(self) -> None:
        """Close the process's standard input."""
        with contextlib.suppress(OSError):
            self._pipe.shutdown(socket.SHUT_WR)


def _datagram_socket(address: Any, codec: Codec[Any] | None, *, listening: bool) -> DatagramSocket:
    family: int = socket.AF_INET
    where: Any = address
    try:
        if isinstance(address, tuple):
            host, port = address
            flags = socket.AI_PASSIVE if listening else 0
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
            family, where = found[0][0], found[0][4]
        elif not hasattr(socket, "AF_UNIX"):
            raise CommandError("this system has no Unix sockets")
        else:
            family = socket.AF_UNIX
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if listening:
            sock.bind(where)
        else:
            if not isinstance(address, tuple):
                with contextlib.suppress(OSError):
                    sock.bind("")  # on Linux a free name, so that the peer can answer
            sock.connect(where)
    except OSError as error:
        raise CommandError(f"{address_name(address)}: {error.strerror or error}") from None
    return DatagramSocket(sock, codec)


# --- listen ---------------------------------------------------------------------------------------


def _listen(arguments: argparse.Namespace) -> int:
    with contextlib.closing(_Screen(as_hex=arguments.hex)) as screen:
        if arguments.udp:
            return _listen_to_datagrams(arguments, screen)
        return _listen_to_streams(arguments, screen)


def _listen_to_streams(arguments: argparse.Namespace, screen: _Screen) -> int:
    context = None
    if arguments.cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.cert, arguments.key)
    codec = arguments.codec or Codec.uint(4)
    try:
        listener = listen(arguments.address, codec)
    except OSError as error:
        where = address_name(arguments.address)
        raise CommandError(f"{where}: {error.strerror or error}") from None
    with listener:
        screen.note(f"listening on {address_name(listener.getsockname())}")
        return _Server(listener, arguments, screen, context).run()


class _Server:
    """The connections of ``listen``."""

    def __init__(
        self,
        listener: Any,
        arguments: argparse.Namespace,
        screen: _Screen,
        context: ssl.SSLContext | None,
    ) -> None:
        self._listener = listener
        self._arguments = arguments
        self._screen = screen
        self._context = context
        self._events = _Events()
        self._connections: dict[FrameSocket, str] = {}
        self._lines_ended = False

    def run(self) -> int:
        """Serve until Ctrl-C, Ctrl-D in a terminal, or the first connection's end (--once)."""
        try:
            with self._events.with_interrupts():
                threading.Thread(target=self._accept, daemon=True).start()
                if not self._arguments.echo:
                    _read_lines(self._events.put)
                self._run()
        finally:
            for conn in list(self._connections):
                conn.close()
        return 0

    def _run(self) -> None:
        while True:
            kind, value = self._events.take()
            if kind == "output closed":
                raise BrokenPipeError
            if kind == "cannot accept":
                raise value
            if self._handle(kind, value):
                return

    def _handle(self, kind: str, value: Any) -> bool:
        """Handle an event; return whether it is the last one."""
        if kind == "connected":
            conn, name = value
            self._connections[conn] = name
            if self._lines_ended:
                self._end_sending(conn)
        elif kind == "line":
            for conn in list(self._connections):
                # Its receiving thread reports the end.
                with contextlib.suppress(OSError), self._events.sending():
                    _send_line(conn, value, self._arguments, self._screen)
        elif kind == "end of lines":
            self._lines_ended = True
            if _stdin_is_terminal():
                return True  # Ctrl-D
            for conn in self._connections:
                self._end_sending(conn)
        else:  # the end of a connection
            conn, error = value
            name = self._connections.pop(conn, "a client")
            conn.close()
            self._screen.note(f"{name} left" + (f": {error}" if error else ""))
            return bool(self._arguments.once)
        return False

    def _end_sending(self, conn: FrameSocket[Any]) -> None:
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            conn.shutdown(socket.SHUT_WR)

    def _accept(self) -> None:
        try:
            for conn in self._listener:
                threading.Thread(target=self._serve, args=(conn,), daemon=True).start()
                if self._arguments.once:
                    return
        except (OSError, ValueError) as error:
            self._events.put(("cannot accept", error))

    def _serve(self, conn: FrameSocket[Any]) -> None:
        name = "a client"
        with contextlib.suppress(OSError):
            peer = conn.getpeername()
            name = address_name(peer) if peer else f"a client of {address_name(conn.getsockname())}"
        if self._context is not None:
            try:
                sock, _ = conn.detach()
                sock.settimeout(10)
                wrapped = self._context.wrap_socket(sock, server_side=True)
                wrapped.settimeout(None)
                conn = FrameSocket(wrapped, conn.codec)
            except (OSError, ValueError) as error:
                self._screen.note(f"{name}: no TLS: {error}")
                sock.close()
                if self._arguments.once:
                    self._events.put(("end", (conn, error)))
                return
        self._events.put(("connected", (conn, name)))
        self._screen.note(f"{name} connected")  # lines go to it from now on
        _receive(conn, self._screen, self._events.put, echo=self._arguments.echo, once=False)


def _listen_to_datagrams(arguments: argparse.Namespace, screen: _Screen) -> int:
    events = _Events()
    with contextlib.ExitStack() as stack:
        stack.enter_context(events.with_interrupts())
        datagrams = stack.enter_context(
            _datagram_socket(arguments.address, arguments.codec, listening=True)
        )
        if not isinstance(arguments.address, tuple):
            stack.callback(os.unlink, arguments.address)
        screen.note(f"listening on {address_name(datagrams.getsockname())}")
        threading.Thread(
            target=_receive_datagrams, args=(datagrams, events.put), daemon=True
        ).start()
        if not arguments.echo:
            _read_lines(events.put)
        _print_and_answer_datagrams(datagrams, events, arguments, screen)
    return 0


def _receive_datagrams(datagrams: DatagramSocket, put: Callable[[_Event], None]) -> None:
    """Report each message with its sender, and each bad datagram, until the socket is closed."""
    while True:
        try:
            event: _Event = ("message", datagrams.recv_from())
        except FrameError as error:
            event = ("bad", error)
        except (OSError, ValueError, EOFError):
            return
        put(event)


def _print_and_answer_datagrams(
    datagrams: DatagramSocket,
    events: _Events,
    arguments: argparse.Namespace,
    screen: _Screen,
) -> None:
    """Print messages and send lines to the last sender, until --once or Ctrl-D ends it."""
    last_sender: Any = None
    while True:
        kind, value = events.take()
        if kind == "message":
            message, last_sender = value
            screen.message(message)
            if arguments.echo and last_sender:
                with contextlib.suppress(OSError):
                    datagrams.send_to(message, last_sender)
            if arguments.once:
                return
        elif kind == "bad":
            screen.note(f"bad datagram: {value}")
        elif kind == "line":
            if last_sender is None:
                screen.note("not sent: no datagram has arrived, so there is no receiver")
            else:
                reply = _Reply(datagrams, last_sender)
                with contextlib.suppress(OSError):
                    _send_line(reply, value, arguments, screen)
        elif _stdin_is_terminal():
            return  # Ctrl-D


class _Reply:
    """The sender of a datagram, as a connection."""

    def __init__(self, datagrams: DatagramSocket, address: Any) -> None:
        self._datagrams = datagrams
        self._address = address

    def send(self, message: Any) -> None:
        """Send a message to it."""
        self._datagrams.send_to(message, self._address)
