"""A quick look at an installed framecodec: each way to use it once, with pytest alone.

The builder of a wheel runs this on the wheel's own platform (the extra ``wheeltest`` has what it
needs). It imports nothing from the other tests, and works wherever the files are.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import pkgutil
import random
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import Codec, splitter

PACKAGE = Path(framecodec.__file__).parent
DISTRIBUTION = importlib.metadata.distribution("framecodec")
EDITABLE = "editable" in (DISTRIBUTION.read_text("direct_url.json") or "")
TIMEOUT = 30.0  # seconds; all waits end long before

CODECS = {
    "uint": Codec.uint(4),
    "little-endian": Codec.uint(2, "little", max_message_size=None),
    "struct": Codec.struct("!Q"),
    "digits": Codec.digits(6),
    "varint": Codec.varint(),
    "netstring": Codec.text(b":", trailer=b","),
    "headers": Codec.headers(),
    "after a type": Codec.uint(4, length_offset=1, length_adjustment=-4, min_message_size=1),
    "magic and trailer": Codec.uint(4, magic=b"\xab\xcd", trailer=b"\n"),
}


# --- what is installed ----------------------------------------------------------------------------


@pytest.mark.skipif(EDITABLE, reason="an editable installation has the modules of the checkout")
def test_the_engine_is_the_one_that_the_wheel_holds() -> None:
    wheel = DISTRIBUTION.read_text("WHEEL")
    assert wheel is not None
    pure = "Root-Is-Purelib: true" in wheel
    if pure:
        assert not framecodec.ACCELERATED
        assert splitter.FALLBACK_REASON
    else:
        assert splitter.FALLBACK_REASON in (None, "FRAMECODEC_NO_EXTENSIONS is set")
    compiled = [path for path in PACKAGE.rglob("*") if path.suffix in (".so", ".pyd")]
    assert pure is not bool(compiled)


@pytest.mark.skipif(EDITABLE, reason="an editable installation has the sources of the checkout")
def test_the_wheel_holds_no_sources_of_compiled_modules_and_no_tests() -> None:
    files = [str(path) for path in DISTRIBUTION.files or ()]
    assert files
    assert not [f for f in files if f.endswith((".c", ".pyx", ".pxd")) or f.startswith("tests")]
    assert any(f.endswith("framecodec/py.typed") for f in files)


def test_the_version_is_that_of_the_metadata() -> None:
    assert DISTRIBUTION.version == framecodec.__version__


def test_every_module_can_be_imported_without_an_extra() -> None:
    extras = {"anyio", "hypothesis", "msgpack", "msgspec", "prompt_toolkit", "rich"}
    names = [
        module.name
        for module in pkgutil.walk_packages([str(PACKAGE)], "framecodec.")
        if not module.name.endswith("__main__")
    ]
    assert len(names) > 50
    for name in names:
        # The compiled modules of Linux alone have their own tests.
        if not name.rpartition(".")[2].startswith(("_messages_loop", "_fast_path")):
            try:
                importlib.import_module(name)
            except ImportError as error:  # or one that says which extra to install
                missing = error.__cause__ or error
                if getattr(missing, "name", None) not in extras:
                    raise


@pytest.mark.parametrize("arguments", [["--version"], ["formats", "kafka"]])
def test_the_command_line_runs(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "framecodec", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_command_has_its_name() -> None:
    names = [entry.name for entry in DISTRIBUTION.entry_points if entry.group == "console_scripts"]
    assert names == ["framecodec"]


# --- bytes to messages ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
def test_messages_survive_every_way_that_the_stream_is_cut(name: str) -> None:
    codec = CODECS[name]
    messages = [b"hello", b"byebye", *(b"x" * size for size in (1, 127, 128, 5000))]
    stream = codec.encode_many(messages)
    assert [codec.decode(codec.encode(message)) for message in messages] == messages
    draw = random.Random(name)
    for size in (1, 2, 7, 4096, len(stream)):
        feeder = codec.splitter()
        received = []
        start = 0
        while start < len(stream):
            end = start + draw.randint(1, size)
            received += feeder.feed(stream[start:end])
            start = end
        feeder.feed_eof()
        assert received == messages
        assert feeder.pending == 0


def test_every_format_of_the_catalogue_can_be_read_from_its_notation() -> None:
    for name in framecodec.formats:
        codec = framecodec.formats[name]
        assert repr(codec), name
        try:
            notation = str(codec)
        except ValueError:  # a shape that needs code
            continue
        assert framecodec.parse_codec(notation) == codec or codec.splitter(), name


def test_bad_frames_are_refused_with_their_position() -> None:
    codec = Codec.digits(4, max_message_size=100)
    feeder = codec.splitter()
    assert feeder.feed(b"0005hello") == [b"hello"]
    with pytest.raises(framecodec.InvalidFrameError, match="offset 9"):
        feeder.feed(b"+005hello")
    with pytest.raises(framecodec.MessageTooLargeError):
        codec.decode(b"0101" + bytes(101))
    with pytest.raises(framecodec.IncompleteFrameError):
        codec.decode(b"0005hell")


@pytest.mark.skipif(not framecodec.ACCELERATED, reason="the compiled engine is not in use")
def test_both_engines_read_the_same_from_damaged_streams() -> None:
    engines = [
        importlib.import_module(f"framecodec.{name}") for name in ("_splitter", "_splitter_py")
    ]
    draw = random.Random(2)
    for codec in CODECS.values():
        whole = codec.encode_many([b"x" * draw.randint(1, 40) for _ in range(8)])
        for _ in range(50):
            stream = bytearray(whole)
            stream[draw.randrange(len(stream))] ^= 1 << draw.randrange(8)
            results = []
            for engine in engines:
                feeder, outcome = engine.Splitter(codec), []
                try:
                    for start in range(0, len(stream), 11):
                        outcome += feeder.feed(bytes(stream[start : start + 11]))
                    feeder.feed_eof()
                except framecodec.FrameError as error:
                    outcome.append(f"{type(error).__name__}: {error}")
                results.append((outcome, feeder.pending))
            assert results[0] == results[1]


# --- sockets, event loops, servers ----------------------------------------------------------------


def shout(conn: Any, messages: list[bytes]) -> None:
    conn.send_many([message.upper() for message in messages])


def shout_in_a_thread(conn: Any) -> None:
    for message in conn:
        conn.send(message.upper())


def check_answers(address: tuple[str, int]) -> None:
    with framecodec.connect(address, timeout=TIMEOUT) as conn:
        conn.settimeout(TIMEOUT)
        conn.send_many([b"hello", b"byebye"])
        conn.send(b"x" * 300_000)
        answers = [conn.recv() for _ in range(3)]
    assert answers == [b"HELLO", b"BYEBYE", b"X" * 300_000]


def test_a_socket_pair_carries_messages_and_a_time_out_loses_nothing() -> None:
    left, right = (framecodec.FrameSocket(end) for end in socket.socketpair())
    with left, right:
        right.settimeout(0.01)
        with pytest.raises(TimeoutError):
            right.recv()
        left.send_many([b"hello", b"byebye"])
        left.close()
        right.settimeout(TIMEOUT)
        assert list(right) == [b"hello", b"byebye"]


@pytest.mark.parametrize(
    "start",
    [
        lambda: framecodec.serve(shout_in_a_thread, ("127.0.0.1", 0)),
        lambda: framecodec.serve_messages(shout, ("127.0.0.1", 0)),
    ],
    ids=["serve", "serve_messages"],
)
def test_a_server_answers_and_closes(start: Callable[[], Any]) -> None:
    with start() as server:
        check_answers(server.address)
        check_answers(server.address)


def test_listen_accepts_what_connect_asks_for() -> None:
    def serve_one_client() -> None:
        with listener.accept() as conn:
            shout_in_a_thread(conn)

    with framecodec.listen(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_one_client, daemon=True)
        thread.start()
        check_answers(listener.getsockname())
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_asyncio_carries_messages() -> None:
    import framecodec.asyncio

    async def answer(stream: framecodec.asyncio.FrameStream) -> None:
        async for message in stream:
            await stream.send(message.upper())

    async def main() -> list[bytes]:
        server = await framecodec.asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with await framecodec.asyncio.open_connection(host, port) as stream:
            await stream.send_many([b"hello", b"x" * 300_000])
            answers = [await stream.recv(), await stream.recv()]
        await server.aclose(1)
        return answers

    answers = asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    assert answers == [b"HELLO", b"X" * 300_000]


def test_datagrams_carry_messages() -> None:
    ends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for end in ends:
        end.bind(("127.0.0.1", 0))
        end.settimeout(TIMEOUT)
    ends[0].connect(ends[1].getsockname())
    ends[1].connect(ends[0].getsockname())
    left, right = (framecodec.DatagramSocket(end) for end in ends)
    with left, right:
        left.send(b"hello")
        assert right.recv() == b"hello"


def test_the_pytest_plugin_gives_its_fixtures(chunking_proxy: Any, frame_pair: Any) -> None:
    left, right = frame_pair()
    left.send(b"hello")
    assert right.recv() == b"hello"
    with framecodec.serve(shout_in_a_thread, ("127.0.0.1", 0)) as server:
        check_answers(chunking_proxy(server.address).address)


def test_the_platform_is_printed_for_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {
        "python": sys.version,
        "platform": sysconfig.get_platform(),
        "engine": "compiled" if framecodec.ACCELERATED else "Python",
        "wheel": (DISTRIBUTION.read_text("WHEEL") or "").split("Tag: ")[-1].strip(),
    }
    with capsys.disabled():
        print("\n" + json.dumps(facts))
    assert framecodec.ACCELERATED is (splitter.FALLBACK_REASON is None)
