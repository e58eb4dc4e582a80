"""The load generator, and the echo servers that need nothing installed."""

from __future__ import annotations

import random
import socket
import threading

import pytest

from . import native
from .bench_server import LOADS, OURS, Server, ask, load_cases
from .contenders import Missing
from .harness import SMOKE, measure


def load() -> native.NativeProgram:
    try:
        return native.get("load")
    except Missing as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", ["C by hand", *OURS, "asyncio streams"])
def test_every_reply_of_an_echo_server_is_right(name: str) -> None:
    program = load()
    try:
        server = Server(name)
    except Missing as reason:
        pytest.skip(str(reason))
    try:
        for connections, in_flight, size in LOADS:
            answer = ask(program, server.port, f"{connections} {in_flight} {size}", 0.02)
            assert answer["replies"] > 0
            assert 0 < answer["p50"] <= answer["p99"] <= answer["p999"]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"\0\0\0\x08wrong!!!", "differs"),
        (b"\0\0\0\x07wrong!!!", "size"),
        (b"", "closed"),
    ],
)
def test_the_load_generator_notices_a_wrong_reply(reply: bytes, text: str) -> None:
    program = load()

    def lie() -> None:
        conn, _ = listener.accept()
        with conn:
            conn.recv(100)
            conn.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lie)
        thread.start()
        with pytest.raises(EOFError, match=text):
            ask(program, listener.getsockname()[1], "1 1 8", 0.1)
        thread.join()


def test_a_load_has_a_table_for_each_figure() -> None:
    load()
    rate, *others = load_cases(2, 1, 64)
    for case in (rate, *others):
        case.native = {
            name: case.native[name] for name in ("C by hand", "serve_messages", "asyncio streams")
        }
    results = [measure(case, SMOKE, random.Random(1)) for case in (rate, *others)]
    assert [sorted(result.samples) for result in results] == [
        ["C by hand", "asyncio streams", "serve_messages"]
    ] * 4
    assert all("serve_messages" in result.table() for result in results)
