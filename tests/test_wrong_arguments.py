"""Likely mistakes in the arguments of a connection: the error says what to pass instead."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import framecodec
import framecodec.anyio
import framecodec.asyncio
from framecodec import Codec, DatagramSocket, FramePipe, FrameSocket, Listener, Splitter
from framecodec.socketserver import FrameRequestHandler
from tests.helpers.event_loops import LOOPS, run
from tests.helpers.servers import LOOPBACK

CODEC = Codec.uint(2)
NOTATION: Any = "u32be"
NOWHERE = ("127.0.0.1", 1)


async def serve_stream(stream: framecodec.asyncio.FrameStream) -> None:
    """Do nothing: no client comes."""


def serve_conn(conn: Any, messages: Any = None) -> None:
    """Do nothing: no client comes."""


async def result_of(made: Any) -> Any:
    return await made if isinstance(made, Awaitable) else made


def raised_by(call: Callable[[], Any]) -> BaseException:
    """Return the error of a call, of which the awaitable ones are awaited."""

    async def main() -> BaseException:
        try:
            made = await result_of(call())
        except (TypeError, ValueError) as error:
            return error
        if hasattr(made, "close"):
            made.close()
        raise AssertionError(f"{made!r} was made")

    return asyncio.run(main())


# --- the notation of a codec where the codec belongs ----------------------------------------------


def on_socket(use: Callable[[socket.socket], Any]) -> Callable[[], Any]:
    def call() -> Any:
        with socket.socket() as sock:
            return use(sock)

    return call


def on_datagram_socket() -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return DatagramSocket(sock, NOTATION)


def on_handler_class() -> Any:
    return type("Handler", (FrameRequestHandler,), {"codec": NOTATION})


AIO = framecodec.asyncio
TAKES_A_CODEC: dict[str, Callable[[], Any]] = {
    "FrameSocket": on_socket(lambda sock: FrameSocket(sock, NOTATION)),
    "FrameSocket.switch": on_socket(lambda sock: FrameSocket(sock).switch(NOTATION)),
    "Listener": on_socket(lambda sock: Listener(sock, NOTATION)),
    "DatagramSocket": on_datagram_socket,
    "FramePipe": lambda: FramePipe(io.BytesIO(), codec=NOTATION),
    "FramePipe.switch": lambda: FramePipe(io.BytesIO()).switch(NOTATION),
    "FrameRequestHandler": on_handler_class,
    "connect": lambda: framecodec.connect(NOWHERE, NOTATION),
    "connect, by name": lambda: framecodec.connect(*NOWHERE, codec=NOTATION),
    "listen": lambda: framecodec.listen(LOOPBACK, NOTATION),
    "serve": lambda: framecodec.serve(serve_conn, LOOPBACK, NOTATION),
    "serve_messages": lambda: framecodec.serve_messages(serve_conn, LOOPBACK, NOTATION),
    "Splitter": lambda: Splitter(NOTATION),
    "Splitter.switch": lambda: CODEC.splitter().switch(NOTATION),
    "Codec.choice": lambda: Codec.choice({1: NOTATION}),
    "Codec.joined": lambda: Codec.joined(NOTATION, last=(0, 1, 1)),
    "asyncio.FrameProtocol": lambda: AIO.FrameProtocol(NOTATION),
    "asyncio.FrameProtocol.switch": lambda: AIO.FrameProtocol(CODEC).switch(NOTATION),
    "asyncio.open_connection": lambda: AIO.open_connection(NOWHERE, NOTATION),
    "asyncio.open_unix_connection": lambda: AIO.open_unix_connection("nowhere", NOTATION),
    "asyncio.start_server": lambda: AIO.start_server(serve_stream, LOOPBACK, NOTATION),
    "asyncio.start_unix_server": lambda: AIO.start_unix_server(serve_stream, "x", NOTATION),
    "asyncio.open_pipes": lambda: AIO.open_pipes(sys.__stdin__.buffer, codec=NOTATION),
    "asyncio.open_stdio": lambda: AIO.open_stdio(codec=NOTATION),
    "asyncio.open_process": lambda: AIO.open_process("true", codec=NOTATION),
    "asyncio.open_datagram_endpoint": lambda: AIO.open_datagram_endpoint(LOOPBACK, codec=NOTATION),
    "anyio.FrameStream": lambda: framecodec.anyio.FrameStream(None, NOTATION),  # type: ignore
}


@pytest.mark.parametrize("call", TAKES_A_CODEC.values(), ids=TAKES_A_CODEC)
def test_a_notation_in_the_place_of_a_codec_names_parse_codec(call: Callable[[], Any]) -> None:
    error = raised_by(call)
    assert isinstance(error, TypeError)
    assert "write framecodec.parse_codec('u32be')" in str(error)


def test_the_text_about_a_notation_is_that_of_both_engines(engine_in_use: Any) -> None:
    with pytest.raises(TypeError, match=r"not the text 'kafka'; write framecodec.parse_codec\('ka"):
        engine_in_use.Splitter("kafka")
    assert framecodec.parse_codec("kafka") == framecodec.formats.kafka


@pytest.mark.parametrize("wrong", [4, None, Codec, b"u32be", Codec.uint])
def test_another_object_in_the_place_of_a_codec_names_a_constructor(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"write framecodec\.Codec\.uint\(4\)"):
        Splitter(wrong)


# --- something else where the socket or the file belongs ------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (io.BytesIO(), "FramePipe"),
        (sys.__stdin__, "FramePipe"),
        (("localhost", 6000), r"framecodec\.connect\(\)"),
        ("localhost:6000", r"framecodec\.connect\(\)"),
    ],
    ids=["file", "text file", "address", "text"],
)
def test_frame_socket_names_what_takes_the_object(wrong: Any, remedy: str) -> None:
    with pytest.raises(TypeError, match=remedy):
        FrameSocket(wrong)


def test_frame_pipe_names_what_takes_the_object() -> None:
    with socket.socket() as sock, pytest.raises(TypeError, match="FrameSocket takes sockets"):
        FramePipe(sock)
    with pytest.raises(TypeError, match=r"os\.fdopen\(descriptor, 'rb', 0\)"):
        FramePipe(0)
    command = [sys.executable, "-c", ""]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        pytest.raises(TypeError, match=r"FramePipe\(process\.stdout, process\.stdin\)"),
    ):
        FramePipe(process)
    with open(os.devnull) as text, pytest.raises(TypeError, match="take its buffer"):
        FramePipe(text)


# --- TLS ------------------------------------------------------------------------------------------

LISTENS: dict[str, Callable[[Any], Any]] = {
    "listen": lambda ssl: framecodec.listen(LOOPBACK, ssl=ssl),
    "serve": lambda ssl: framecodec.serve(serve_conn, LOOPBACK, ssl=ssl),
    "start_server": lambda ssl: AIO.start_server(serve_stream, LOOPBACK, ssl=ssl),
    "start_unix_server": lambda ssl: AIO.start_unix_server(serve_stream, "nowhere", ssl=ssl),
}


@pytest.mark.parametrize("listen", LISTENS.values(), ids=LISTENS)
@pytest.mark.parametrize("wrong", [True, False, "server.pem"])
def test_a_server_refuses_what_is_no_context(listen: Callable[[Any], Any], wrong: Any) -> None:
    error = raised_by(lambda: listen(wrong))
    assert isinstance(error, TypeError)
    assert f"with the server's certificate, or None, not {wrong!r}; make it by" in str(error)
    assert "load_cert_chain()" in str(error)


@pytest.mark.parametrize("listen", LISTENS.values(), ids=LISTENS)
def test_a_server_refuses_the_context_of_a_client(listen: Callable[[Any], Any]) -> None:
    error = raised_by(lambda: listen(ssl.create_default_context()))
    assert isinstance(error, ValueError)
    assert "a client, a server needs its own; make it by" in str(error)


def test_serve_messages_names_the_servers_with_tls() -> None:
    wrong: Any = True
    with pytest.raises(ValueError, match=r"use serve\(\), or framecodec.asyncio.start_server\(\)"):
        framecodec.serve_messages(serve_conn, LOOPBACK, ssl=wrong)


# --- names of options -----------------------------------------------------------------------------

PASSES_ON: dict[str, Callable[..., Any]] = {
    "open_connection": lambda **options: AIO.open_connection(NOWHERE, **options),
    "open_unix_connection": lambda **options: AIO.open_unix_connection("nowhere", **options),
    "start_server": lambda **options: AIO.start_server(serve_stream, LOOPBACK, **options),
    "start_unix_server": lambda **options: AIO.start_unix_server(serve_stream, "x", **options),
}


@pytest.mark.parametrize("function", PASSES_ON)
def test_timeout_of_asyncio_names_what_bounds_a_wait(function: str) -> None:
    error = raised_by(lambda: PASSES_ON[function](timeout=1))
    assert isinstance(error, TypeError)
    assert str(error).startswith(f"{function}() got an unexpected keyword argument 'timeout'; ")
    assert "asyncio.timeout(seconds)" in str(error)
    assert "message_timeout=" in str(error)


@pytest.mark.parametrize("function", PASSES_ON)
def test_a_misspelled_option_names_the_right_one(function: str) -> None:
    error = raised_by(lambda: PASSES_ON[function](mesage_timeout=1))
    assert isinstance(error, TypeError)
    assert str(error) == (
        f"{function}() got an unexpected keyword argument 'mesage_timeout';"
        " did you mean 'message_timeout'?"
    )


@LOOPS
@pytest.mark.parametrize("function", PASSES_ON)
def test_other_unknown_options_are_left_to_the_event_loop(function: str, loop: str) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="wavelength"):
            await PASSES_ON[function](wavelength=1)

    run(loop, main())
