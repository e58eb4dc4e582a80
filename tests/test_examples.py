"""The examples, each as the two commands that its text names: a server and a client process."""

from __future__ import annotations

import socket

import pytest

from tests.programs import ROOT, finish, printed_port, running

EXAMPLES = ROOT / "examples"

# name: what the server prints behind its port, what the client prints
OUTPUT = {
    "greeting": ("the client says 再见\n", "the server says 你好\n"),
    "sticky": ("", "before: b'hello' b'byeb'\nafter: b'hello' b'byebye'\n"),
    "ascii_length": ("", "received b'hello'\nreceived b'byebye'\n"),
    "struct_length": ("", "received b'HELLO' b'BYEBYE'\n"),
}


@pytest.mark.parametrize("name", OUTPUT)
def test_an_example_says_what_it_should(name: str) -> None:
    with running(EXAMPLES / f"{name}_server.py", "0") as server:
        port = printed_port(server)
        with running(EXAMPLES / f"{name}_client.py", port) as client:
            client_output = finish(client)
        server_output = finish(server)
    assert (server_output, client_output) == OUTPUT[name]


def test_the_ascii_length_server_sends_the_bytes_that_it_draws() -> None:
    with running(EXAMPLES / "ascii_length_server.py", "0") as server:
        port = int(printed_port(server))
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            wire = b"".join(iter(lambda: client.recv(100), b""))
        finish(server)
    assert wire == b"0005hello0006byebye"


def test_every_example_of_two_programs_is_run_here() -> None:
    pairs = {
        path.name.removesuffix("_server.py")
        for path in EXAMPLES.glob("*_server.py")
        if path.with_name(path.name.replace("_server", "_client")).exists()
    }
    assert pairs == set(OUTPUT)
