"""Messages that are objects: codecs made by `with_objects`, in everything that takes a codec."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import pickle
import random
import socket
import sys
import threading
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import framecodec.asyncio
from framecodec import (
    Check,
    Codec,
    DatagramSocket,
    FrameError,
    FrameSocket,
    IncompleteFrameError,
    InvalidFrameError,
    InvalidMessageError,
    MessageTooLargeError,
    _objects,
    connect,
    formats,
    parse_codec,
    serve,
    serve_messages,
)
from framecodec._objects import frame_starts, refused
from framecodec.asyncio import FrameProtocol
from framecodec.socketserver import DatagramReply
from tests.helpers.chunking import compositions
from tests.helpers.event_loops import LOOPS, run
from tests.helpers.fault_injection import reset, stream_pair

pytestmark = pytest.mark.usefixtures("engine_in_use")

TIMEOUT = 10.0


def dumps(message: Any) -> bytes:
    return json.dumps(message).encode()


def loads(data: bytes) -> Any:
    if data == b"stop":
        raise KeyboardInterrupt
    return json.loads(data)


SHAPES = {
    "uint": Codec.uint(2),
    "digits": Codec.digits(4, magic=b"!", trailer=b"\n"),
    "hex": Codec.digits(4, base=16),
    "headers": Codec.headers(),
    "ber": Codec.ber(),
    "aligned": Codec.uint(2, align=4),
}
PLAIN = Codec.uint(2)
JSON = PLAIN.as_json()
BAD = b"{bad"


def stream_of(plain: Codec, *items: Any) -> tuple[bytes, list[Any]]:
    """Return a stream, and what is delivered: objects, and the offset of each refused message."""
    stream, expected = b"", []
    for item in items:
        if isinstance(item, bytes):
            expected.append(len(stream))
            stream += plain.encode(item)
        else:
            expected.append(item)
            stream += plain.encode(dumps(item))
    return stream, expected


MIXED = ([1], BAD, {"x": 2}, b"", BAD, "z")


def drain(splitter: Any, call: Callable[[Any], list[Any]], argument: Any) -> list[Any]:
    """Return the objects of a call and of those after it, and the offsets of refused messages."""
    outcome: list[Any] = []
    while True:
        try:
            messages = call(argument)
            outcome += messages
            if not messages or splitter.error is None:
                return outcome
        except InvalidMessageError as error:
            outcome.append(error.stream_offset)
        call, argument = splitter.feed, b""


# --- the codec as a value -------------------------------------------------------------------------


def test_a_codec_with_objects_is_a_value() -> None:
    made = [PLAIN.as_json(), PLAIN.with_objects(dumps, loads)]
    if importlib.util.find_spec("msgpack"):
        made.append(PLAIN.as_msgpack())
    for codec in made:
        copy = pickle.loads(pickle.dumps(codec))
        assert copy == codec
        assert hash(copy) == hash(codec)
        assert copy.decode(copy.encode([1, "é"])) == [1, "é"]
        assert codec.without_objects() == PLAIN
        assert codec != PLAIN
    assert len({*made, PLAIN}) == len(made) + 1
    assert repr(made[0]) == "Codec.uint(2).as_json()"
    assert repr(made[1]) == "Codec.uint(2).with_objects(dumps, loads)"
    assert eval(repr(made[0])) == made[0]
    assert PLAIN.without_objects() is PLAIN


def test_replace_keeps_the_objects() -> None:
    codec = JSON.replace(max_message_size=5)
    assert codec == PLAIN.replace(max_message_size=5).as_json()
    assert codec.decode(codec.encode([1])) == [1]
    with pytest.raises(MessageTooLargeError):
        codec.encode("too long")


def test_the_notation_of_a_codec_with_objects_is_its_repr() -> None:
    assert str(JSON) == repr(JSON)
    with pytest.raises(ValueError, match="bad codec notation"):
        parse_codec(str(JSON))


def test_with_objects_refuses_what_is_not_a_function() -> None:
    with pytest.raises(TypeError, match="loads must be a function, not 'NoneType'"):
        PLAIN.with_objects(dumps, None)


def test_what_dumps_returns_must_be_bytes_like() -> None:
    codec = PLAIN.with_objects(json.dumps, json.loads)
    with pytest.raises(TypeError, match=r"encode the text first"):
        codec.encode([1])


# --- verbs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_every_verb_takes_and_gives_objects(name: str) -> None:
    plain = SHAPES[name]
    codec = plain.with_objects(dumps, loads)
    objects = [{"a": [1, None]}, "text", [], 0, None]
    frames = [plain.encode(dumps(each)) for each in objects]
    stream = b"".join(frames)
    assert [codec.encode(each) for each in objects] == frames
    assert codec.encode_many(iter(objects)) == stream
    assert [b"".join(codec.frame_parts(each)) for each in objects] == frames
    assert [codec.decode(frame) for frame in frames] == objects
    assert codec.split(stream) == (objects, len(stream))
    assert [bytes(span) for span in codec.scan(stream)] == [dumps(each) for each in objects]
    assert codec.splitter().feed(stream) == objects
    assert codec.splitter(raw=True).feed(stream) == frames
    assert list(codec.read(stream)) == objects
    file = io.BytesIO()
    assert codec.write(file, objects) == len(objects)
    assert file.getvalue() == stream


@pytest.mark.parametrize("one", [{"id": 1}, "text", b"bytes", bytearray(1), memoryview(b"a")])
def test_encode_many_refuses_one_object(engine_in_use: ModuleType, one: Any) -> None:
    text = "an iterable of messages is required, not one of type .*; use encode"
    with pytest.raises(TypeError, match=text):
        PLAIN.as_json().encode_many(one)


def test_a_bytes_object_is_an_object_too() -> None:
    codec = PLAIN.with_objects(zlib.compress, zlib.decompress)
    message = b"0" * 5000
    assert len(codec.encode(message)) < 100
    assert codec.decode(codec.encode(message)) == message
    a, b = socket.socketpair()
    with FrameSocket(a, codec) as sender, FrameSocket(b, codec) as receiver:
        receiver.settimeout(TIMEOUT)
        sender.send(message)
        sender.send_many([message, b"x"])
        assert [receiver.recv() for _ in range(3)] == [message, message, b"x"]


def test_decode_and_split_tell_what_loads_refused() -> None:
    with pytest.raises(
        InvalidMessageError, match=r"refused its 4 bytes.*JSONDecodeError"
    ) as caught:
        JSON.decode(PLAIN.encode(BAD))
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)
    assert (caught.value.stream_offset, caught.value.size) == (0, 4)
    assert caught.value.header == b"\0\4"
    stream, _ = stream_of(PLAIN, [1], 2, BAD, 3)
    assert JSON.split(stream) == ([[1], 2], 8)
    with pytest.raises(InvalidMessageError):
        JSON.split(stream[8:])
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.size) == (str(caught.value), 4)


@pytest.mark.parametrize("text", [b"NaN", b"[Infinity]", b"\xff", b'"\xed\xa0\x80"', b""])
def test_as_json_refuses_what_is_no_json(text: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        JSON.decode(PLAIN.encode(text))


def test_as_json_refuses_to_write_what_is_no_json() -> None:
    for message in (float("nan"), {1, 2}, b"bytes"):
        with pytest.raises((ValueError, TypeError)):
            JSON.encode(message)


def test_as_msgpack_takes_bytes_and_keys_of_any_kind() -> None:
    pytest.importorskip("msgpack")
    codec = PLAIN.as_msgpack()
    message = {1: b"raw", "text": [1.5, None]}
    assert codec.decode(codec.encode(message)) == message
    with pytest.raises(InvalidMessageError):
        codec.decode(PLAIN.encode(b"\xc1"))


def test_as_struct_verifies_the_type() -> None:
    pytest.importorskip("msgspec")
    for encoding in ("json", "msgpack"):
        codec = PLAIN.as_struct(dict[str, int], encoding=encoding)
        assert codec.decode(codec.encode({"a": 1})) == {"a": 1}
        assert pickle.loads(pickle.dumps(codec)) == codec
        with pytest.raises(InvalidMessageError, match="ValidationError"):
            codec.decode(codec.encode({"a": "text"}))
    with pytest.raises(ValueError, match="encoding must be"):
        PLAIN.as_struct(int, encoding="yaml")


def test_special_objects_pass_as_they_are() -> None:
    codec = Codec.struct("!i", specials={-1: None, -2: "bye"}).as_json()
    for message in (None, "bye", "other", 0, [None]):
        assert codec.decode(codec.encode(message)) == message
    assert codec.encode(None) == b"\xff\xff\xff\xff"
    assert codec.encode("bye") == b"\xff\xff\xff\xfe"


def test_the_messages_of_a_tagged_choice_keep_their_names() -> None:
    codec = Codec.choice(
        {
            "short": (range_of(0, 128), Codec.uint(1)),
            "long": (range_of(128, 256), Codec.uint(2, length_mask=0x7FFF)),
        },
        tagged=True,
    )
    objects = codec.as_json()
    stream = b"".join(map(objects.encode, [("short", [1]), ("short", "x")])) + b"\2{]"
    splitter = objects.splitter()
    assert splitter.feed(stream) == [("short", [1]), ("short", "x")]
    with pytest.raises(InvalidMessageError, match="its 2 bytes"):
        splitter.feed(b"")
    with pytest.raises((ValueError, TypeError, FrameError)):
        objects.encode([1])
    with pytest.raises(ValueError, match="objects"):
        Codec.choice({None: Codec.uint(1).as_json()})


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("tagged", [False, True])
def test_special_objects_of_an_alternative_pass_as_they_are(tagged: bool, nested: bool) -> None:
    special: Codec[Any] = Codec.uint(1, specials={255: None, 254: "bye"})
    codec = choice({"a": (b"\xfe\xff", special), "b": (range_of(0, 9), Codec.uint(1))}, tagged)
    if nested:
        outer = {"c": (b"\xfe\xff" + range_of(0, 9), codec), "d": (100, Codec.fixed(1))}
        codec = choice(outer, tagged)

    def message(name: str, content: Any) -> Any:
        named = (name, content) if tagged else content
        return ("c", named) if tagged and nested else named

    objects = codec.as_json()
    loaded = objects.splitter().feed(b"\xff\xfe\x02[]\x04null")
    assert loaded == [message("a", None), message("a", "bye"), message("b", []), message("b", None)]
    assert objects.encode(message("a", "bye")) == b"\xfe"
    if tagged:  # the name tells whose special object it is
        assert objects.encode(message("b", "bye")) == b'\x05"bye"'


def choice(alternatives: dict[str, Any], tagged: bool) -> Codec[Any]:
    return Codec.choice(alternatives if tagged else dict(alternatives.values()), tagged=tagged)


def range_of(start: int, stop: int) -> bytes:
    return bytes(range(start, stop))


# --- splitters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_a_refused_message_comes_in_its_place_for_every_chunking(
    engine: ModuleType, name: str
) -> None:
    plain = SHAPES[name]
    stream, expected = stream_of(plain, *MIXED)
    rng = random.Random(1)
    for pieces in (1, 2, 3, 7, 16, len(stream)):
        splitter = engine.Splitter(plain.with_objects(dumps, loads))
        outcome: list[Any] = []
        pos = 0
        while pos < len(stream):
            size = max(1, min(len(stream) // pieces, rng.randint(1, len(stream))))
            chunk = stream[pos : pos + size]
            pos += size
            if rng.random() < 0.5:
                outcome += drain(splitter, splitter.feed, chunk)
            else:
                with splitter.get_buffer(len(chunk)) as buffer:
                    buffer[: len(chunk)] = chunk
                outcome += drain(splitter, splitter.buffer_updated, len(chunk))
        assert outcome == expected
        splitter.feed_eof()
        assert (splitter.error, splitter.pending) == (None, 0)


def test_each_composition_of_a_short_stream_gives_the_same(engine: ModuleType) -> None:
    plain = Codec.uint(1)
    stream, expected = stream_of(plain, 1, b"x", 2, b"")
    for chunks in compositions(stream):
        splitter = engine.Splitter(plain.as_json())
        outcome = []
        for chunk in chunks:
            outcome += drain(splitter, splitter.feed, chunk)
        assert outcome == expected


def test_messages_come_before_the_error_and_after_it(engine: ModuleType) -> None:
    stream, _ = stream_of(PLAIN, 1, BAD, 2)
    splitter = engine.Splitter(JSON)
    assert splitter.feed(stream) == [1]
    assert isinstance(splitter.error, InvalidMessageError)
    later, _ = stream_of(PLAIN, 3)
    with pytest.raises(InvalidMessageError, match="at stream offset 3: ") as caught:
        splitter.feed(later)  # it is taken
    assert (caught.value.stream_offset, caught.value.header) == (3, b"\0\4")
    assert splitter.error is None
    assert splitter.feed(b"") == [2, 3]
    assert splitter.stream_offset == len(stream + later)


def test_a_broken_stream_is_told_after_the_messages(engine: ModuleType) -> None:
    codec = Codec.uint(2, max_message_size=9)
    stream, _ = stream_of(codec, 1, BAD, 2)
    splitter = engine.Splitter(codec.as_json())
    assert splitter.feed(stream + b"\xff\xff") == [1]
    with pytest.raises(InvalidMessageError):
        splitter.feed(b"")
    assert splitter.feed(b"ignored") == [2]
    for _ in range(2):
        with pytest.raises(MessageTooLargeError):
            splitter.feed(b"")


def test_the_end_inside_a_frame_is_told_after_the_messages(engine: ModuleType) -> None:
    stream, _ = stream_of(PLAIN, 1, BAD, 2)
    splitter = engine.Splitter(JSON)
    splitter.feed(stream + b"\0")
    splitter.feed_eof()
    with pytest.raises(InvalidMessageError):
        splitter.feed(b"")
    assert splitter.feed(b"") == [2]
    with pytest.raises(IncompleteFrameError):
        splitter.feed(b"")


@pytest.mark.parametrize("name", SHAPES)
def test_detach_gives_undelivered_messages_back_as_they_travelled(
    engine: ModuleType, name: str
) -> None:
    plain = SHAPES[name]
    stream, _ = stream_of(plain, 1, BAD, {"a": 2})
    stream = stream.replace(b"Content-Length: ", b"content-length:")
    start = len(plain.encode(b"1")) - (1 if name == "headers" else 0)
    tail = plain.encode(b"unfinished")[:-3]
    splitter = engine.Splitter(plain.as_json())
    assert splitter.feed(stream + tail) == [1]
    assert splitter.detach() == stream[start:] + tail
    with pytest.raises(ValueError, match="detached"):
        splitter.feed(b"")


def test_an_interruption_of_loads_sticks(engine: ModuleType) -> None:
    codec = PLAIN.with_objects(dumps, loads)
    stream = PLAIN.encode_many([b"1", b"stop", b"2"])
    splitter = engine.Splitter(codec)
    assert splitter.feed(stream) == [1]
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            splitter.feed(b"")
    assert splitter.detach() == PLAIN.encode_many([b"stop", b"2"])


def test_loads_cannot_reenter_the_splitter(engine: ModuleType) -> None:
    def feed_again(data: bytes) -> Any:
        return splitter.feed(data)

    splitter = engine.Splitter(PLAIN.with_objects(bytes, feed_again))
    with pytest.raises(InvalidMessageError, match="RuntimeError"):
        splitter.feed(PLAIN.encode(b"x"))
    assert splitter.feed(b"") == []


def test_many_refused_messages_cost_as_much_each(engine: ModuleType) -> None:
    count = 20000
    calls = 0

    def refuse(data: bytes) -> Any:
        nonlocal calls
        calls += 1
        raise ValueError("no")

    splitter = engine.Splitter(PLAIN.with_objects(bytes, refuse))
    outcome = drain(splitter, splitter.feed, PLAIN.encode(b"") * count)
    assert outcome == list(range(0, 2 * count, 2))
    assert calls == count


# --- files ----------------------------------------------------------------------------------------


def test_reading_goes_on_after_a_refused_message() -> None:
    stream, expected = stream_of(PLAIN, *MIXED)
    for source in (stream, io.BytesIO(stream), [stream[i : i + 1] for i in range(len(stream))]):
        messages = JSON.read(source)
        outcome: list[Any] = []
        while True:
            try:
                outcome.append(next(messages))
            except InvalidMessageError as error:
                outcome.append(error.stream_offset)
            except StopIteration:
                break
        assert outcome == expected


# --- blocking connections -------------------------------------------------------------------------


def test_recv_goes_on_after_a_refused_message() -> None:
    for plain in SHAPES.values():
        a, b = socket.socketpair()
        with a, FrameSocket(b, plain.with_objects(dumps, loads)) as conn:
            assert isinstance(conn, FrameSocket)
            conn.settimeout(TIMEOUT)
            stream, expected = stream_of(plain, *MIXED)
            for receive in (lambda: [conn.recv()], conn.recv_many):
                before = conn._receiving.inbox.splitter.stream_offset
                a.sendall(stream)
                outcome: list[Any] = []
                while len(outcome) < len(expected):
                    try:
                        outcome += receive()
                    except InvalidMessageError as error:
                        outcome.append(error.stream_offset - before)
                assert outcome == expected
            a.sendall(stream)
            a.shutdown(socket.SHUT_WR)
            outcome = []
            while len(outcome) < len(expected):
                try:
                    outcome.extend(conn)
                except InvalidMessageError as error:
                    outcome.append(error.stream_offset - 2 * before)
            # The offsets of the third pass count from the first byte of the stream.
            assert [type(each) for each in outcome] == [type(each) for each in expected]


@pytest.mark.usefixtures("engine_in_use")
@pytest.mark.parametrize("method", ["recv", "recv_many"])
def test_a_time_out_and_a_reset_reach_who_receives_objects(method: str) -> None:
    with stream_pair("tcp") as (peer, sock), FrameSocket(sock, PLAIN.as_json()) as conn:
        receive = getattr(conn, method)
        peer.sendall(b"\0\3[")
        conn.settimeout(0.01)
        with pytest.raises(TimeoutError, match="3 of 5 bytes"):
            receive()
        conn.settimeout(TIMEOUT)
        peer.sendall(b"1]")
        assert receive() == ([1] if method == "recv" else [[1]])
        reset(peer)
        with pytest.raises(ConnectionResetError):
            receive()


@pytest.mark.usefixtures("engine_in_use")
def test_send_of_an_object_to_a_peer_that_has_left_raises() -> None:
    with stream_pair("socketpair") as (peer, sock), FrameSocket(sock, PLAIN.as_json()) as conn:
        conn.settimeout(TIMEOUT)
        peer.close()
        for _ in range(2):
            with pytest.raises(BrokenPipeError) as caught:
                conn.send([1])
            assert caught.value.message_started is False  # type: ignore[attr-defined]


@pytest.mark.usefixtures("engine_in_use")
def test_an_object_that_a_slow_peer_takes_in_pieces_arrives_whole() -> None:
    codec = Codec.uint(4, max_message_size=None).as_json()
    with (
        stream_pair("tcp") as (ours, theirs),
        FrameSocket(ours, codec) as conn,
        FrameSocket(theirs, codec) as peer,
    ):
        conn.settimeout(0)
        with pytest.raises(BlockingIOError) as caught:
            conn.send("x" * 20_000_000)
        assert caught.value.message_started is True
        conn.settimeout(TIMEOUT)
        peer.settimeout(TIMEOUT)
        thread = threading.Thread(target=conn.send, args=("y" * 5_000_000,))
        thread.start()
        assert peer.recv() == "x" * 20_000_000
        assert peer.recv() == "y" * 5_000_000
        thread.join(TIMEOUT)
        assert conn.pending_send == 0


def test_detach_of_a_connection_gives_back_what_was_not_received() -> None:
    for name in ("uint", "headers"):
        plain = SHAPES[name]
        stream, _ = stream_of(plain, 1, BAD, 2)
        a, b = socket.socketpair()
        conn = FrameSocket(b, plain.as_json())
        conn.settimeout(TIMEOUT)
        a.sendall(stream)
        assert conn.recv() == 1
        sock, unread = conn.detach()
        assert unread == stream[len(plain.encode(b"1")) :]
        sock.close()
        a.close()


def test_an_interruption_of_loads_loses_no_message() -> None:
    stops = iter([True, False] * 3)
    received: list[Any] = []

    def interrupted(data: bytes) -> Any:
        if next(stops):
            raise KeyboardInterrupt
        return json.loads(data)

    a, b = socket.socketpair()
    codec = PLAIN.with_objects(dumps, interrupted)
    with FrameSocket(a, JSON) as sender, FrameSocket(b, codec) as conn:
        conn.settimeout(TIMEOUT)
        sender.send_many([1, 2, 3])
        for receive in (conn.recv, conn.recv_many, conn.recv):
            with pytest.raises(KeyboardInterrupt):
                receive()
            conn.settimeout(TIMEOUT)
            received.append(conn.recv())
    assert received == [1, 2, 3]


@pytest.mark.parametrize("interrupting", [False, True], ids=["refused", "interrupted"])
def test_an_iteration_and_calls_beside_it_get_each_message_once(interrupting: bool) -> None:
    failures = iter([KeyboardInterrupt() if interrupting else ValueError()])

    def fail_once_at_3(data: bytes) -> Any:
        if data == b"3":
            for failure in failures:
                raise failure
        return json.loads(data)

    a, b = socket.socketpair()
    codec = PLAIN.with_objects(dumps, fail_once_at_3)
    with FrameSocket(a, JSON) as sender, FrameSocket(b, codec) as conn:
        conn.settimeout(TIMEOUT)
        sender.send_many([1, 2, 3, 4])
        sender.close()
        messages = iter(conn)
        received = [next(messages)]
        if interrupting:
            received.append(conn.recv())
            with pytest.raises(KeyboardInterrupt):
                conn.recv()
        else:
            received += conn.recv_many()
        received += messages
    assert received == [1, 2, 3, 4]


def test_a_refused_message_before_a_begun_frame_of_another_alternative(engine: ModuleType) -> None:
    plain = Codec.choice({0: Codec.fixed(2), 1: Codec.digits(2, length_offset=1)})
    splitter = engine.Splitter(plain.with_objects(bytes, json.loads))
    for data, offset in ((b"\0x\x0102", 0), (b"ab\0", 2), (b"y", 7)):
        with pytest.raises(InvalidMessageError) as caught:
            splitter.feed(data)
        assert caught.value.stream_offset == offset
    assert splitter.feed(b"") == []


@pytest.mark.parametrize("plain", [formats["slip"], Codec.delimiter(b"\n", magic=b"K")], ids=str)
def test_the_header_of_a_refused_line_is_its_magic(engine: ModuleType, plain: Codec) -> None:
    splitter = engine.Splitter(plain.as_json())
    with pytest.raises(InvalidMessageError) as caught:
        splitter.feed(plain.encode(b"{bad"))
    assert caught.value.header == plain.parameters["magic"]


def test_what_dumps_raises_sends_nothing() -> None:
    a, b = socket.socketpair()
    with FrameSocket(a, JSON) as sender, FrameSocket(b, JSON) as receiver:
        receiver.settimeout(TIMEOUT)
        with pytest.raises(TypeError):
            sender.send({1, 2})
        with pytest.raises(TypeError):
            sender.send_many([1, {2}])
        sender.send("x" * 60000)
        assert receiver.recv() == "x" * 60000


def test_files_are_sent_and_received_as_bytes(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"[1, 2]")
    a, b = socket.socketpair()
    with FrameSocket(a, JSON) as sender, FrameSocket(b, JSON) as receiver:
        receiver.settimeout(TIMEOUT)
        with path.open("rb") as file:
            sender.send_file(file)
        sender.send([3])
        assert receiver.recv() == [1, 2]
        target = io.BytesIO()
        assert receiver.recv_file(target) == 3
        assert target.getvalue() == b"[3]"


def test_a_datagram_has_its_errors_in_their_places() -> None:
    stream, expected = stream_of(PLAIN, *MIXED)
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, DatagramSocket(b, JSON) as conn:
        conn.settimeout(TIMEOUT)
        for receive in (lambda: [conn.recv()], lambda: [conn.recv_from()[0]], conn.recv_many):
            a.send(stream + b"\0")
            outcome: list[Any] = []
            while len(outcome) < len(expected):
                try:
                    outcome += receive()
                except InvalidMessageError as error:
                    outcome.append(error.stream_offset)
            assert outcome == expected
            with pytest.raises(IncompleteFrameError):
                conn.recv()
        a.send(PLAIN.encode_many([b"1", b"2", b"3"]))
        assert conn.recv() == 1
        assert conn.recv_many() == [2, 3]
        conn.send({"a": 1})
        assert JSON.decode(a.recv(100)) == {"a": 1}


def test_a_reply_to_a_datagram_has_its_errors_in_their_places() -> None:
    stream, expected = stream_of(PLAIN, *MIXED)
    addresses = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name in ("recv", "recv_many"):
            reply = DatagramReply(stream, sock, ("127.0.0.1", 9), JSON)
            outcome: list[Any] = []
            while len(outcome) < len(expected):
                try:
                    messages = getattr(reply, name)()
                    outcome += messages if name == "recv_many" else [messages]
                except InvalidMessageError as error:
                    outcome.append(error.stream_offset)
                    addresses.add(error.address)
            assert outcome == expected
            assert addresses == {("127.0.0.1", 9)}
            with pytest.raises(EOFError):
                reply.recv()


def test_servers_take_objects_and_end_a_client_that_sends_others(
    logged: Callable[[], list[str]],
) -> None:
    def echo(conn: FrameSocket) -> None:
        for message in conn:
            conn.send(message)

    for start in (
        lambda: serve(echo, ("127.0.0.1", 0), codec=JSON),
        lambda: serve_messages(lambda _, messages: messages, ("127.0.0.1", 0), codec=JSON),
    ):
        with start() as server, connect(server.address, JSON) as conn:
            conn.settimeout(TIMEOUT)
            conn.send({"q": 1})
            assert conn.recv() == {"q": 1}
            assert server.broadcast("all") == 1
            assert conn.recv() == "all"
            conn._sock.sendall(stream_of(PLAIN, 1, BAD, 2)[0])
            assert conn.recv() == 1
            with pytest.raises(EOFError):
                conn.recv()
    ended = [text for text in logged() if "InvalidMessageError" in text]
    assert len(ended) == 2
    assert all(text.startswith("WARNING") for text in ended)


# --- event loops ----------------------------------------------------------------------------------


@LOOPS
def test_a_stream_goes_on_after_a_refused_message(loop: str) -> None:
    async def receive_all(plain: Codec, how: str) -> list[Any]:
        codec = plain.with_objects(dumps, loads)
        stream_bytes, expected = stream_of(plain, *MIXED)

        async def serve_it(stream: Any) -> None:
            stream.transport.write(stream_bytes)

        outcome: list[Any] = []
        server = await framecodec.asyncio.start_server(serve_it, "127.0.0.1", 0, codec=codec)
        async with (
            server,
            await framecodec.asyncio.open_connection(*server.address, codec=codec) as stream,
        ):
            while True:
                try:
                    if how == "for":
                        async for message in stream:
                            outcome.append(message)
                        break
                    if how == "recv":
                        outcome.append(await stream.recv())
                    else:
                        outcome += await stream.recv_many()
                except InvalidMessageError as error:
                    outcome.append(error.stream_offset)
                except EOFError:
                    break
        assert outcome == expected, (plain, how)
        return outcome

    async def main() -> None:
        for plain in SHAPES.values():
            for how in ("for", "recv", "many"):
                await receive_all(plain, how)

    run(loop, main())


@LOOPS
def test_streams_send_objects(loop: str) -> None:
    async def echo(stream: Any) -> None:
        async for message in stream:
            await stream.send(message)

    async def main() -> None:
        server = await framecodec.asyncio.start_server(echo, "127.0.0.1", 0, codec=JSON)
        async with (
            server,
            await framecodec.asyncio.open_connection(*server.address, codec=JSON) as stream,
        ):
            messages = [{"a": 1}, "x" * 50000, None]
            for message in messages:
                await stream.send(message)
            await stream.send_many(messages)
            assert [await stream.recv() for _ in range(6)] == messages * 2
            with pytest.raises(TypeError):
                await stream.send({1})
            with pytest.raises(TypeError):
                await stream.send_many([1, {1}])
            assert server.broadcast("all") == 1
            assert await stream.recv() == "all"

    run(loop, main())


class Recorder(FrameProtocol):
    def __init__(self, codec: Codec, ended: asyncio.Future[None], **options: Any) -> None:
        super().__init__(codec, **options)
        self.outcome: list[Any] = []
        self.ended = ended

    def messages_received(self, messages: list[Any]) -> None:
        self.outcome += messages

    def connection_lost(self, exc: Exception | None) -> None:
        self.outcome.append(exc)
        self.ended.set_result(None)


class Tolerant(Recorder):
    def message_invalid(self, error: InvalidMessageError) -> None:
        assert error.stream_offset is not None
        self.outcome.append(error.stream_offset)


class Slotted(FrameProtocol):
    __slots__ = ()


async def outcome_of(kind: type[Recorder], plain: Codec) -> tuple[list[Any], list[Any]]:
    stream, expected = stream_of(plain, *MIXED)
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    a, b = socket.socketpair()
    codec = plain.with_objects(dumps, loads)
    _, protocol = await loop.create_connection(lambda: kind(codec, ended), sock=a)
    with b:
        b.sendall(stream)
        b.shutdown(socket.SHUT_WR)
        await asyncio.wait_for(ended, TIMEOUT)
    return protocol.outcome, expected


@LOOPS
def test_a_protocol_closes_for_a_refused_message_or_goes_on(loop: str) -> None:
    async def main() -> None:
        for plain in SHAPES.values():
            outcome, expected = await outcome_of(Tolerant, plain)
            assert outcome == [*expected, None]
            outcome, _ = await outcome_of(Recorder, plain)
            assert outcome[0] == [1]
            assert isinstance(outcome[1], InvalidMessageError)
            assert len(outcome) == 2

    run(loop, main())


def test_a_protocol_without_a_dict_sends_objects() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        _, protocol = await loop.create_connection(lambda: Slotted(JSON), sock=a)
        with b:
            protocol.send([1])
            protocol.send_many([2, 3])
            await asyncio.sleep(0.01)
            assert JSON.split(b.recv(100)) == ([[1], 2, 3], 11)
            protocol.transport.close()

    asyncio.run(main())


def test_datagrams_in_an_event_loop_have_their_errors_in_their_places() -> None:
    async def main() -> None:
        stream, expected = stream_of(PLAIN, *MIXED)
        receiver = await framecodec.asyncio.open_datagram_endpoint(("127.0.0.1", 0), codec=JSON)
        address = receiver.get_extra_info("sockname")
        async with receiver:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(stream, address)
            outcome: list[Any] = []
            while len(outcome) < len(expected):
                try:
                    outcome.append(await asyncio.wait_for(receiver.recv(), TIMEOUT))
                except InvalidMessageError as error:
                    outcome.append(error.stream_offset)
            assert outcome == expected
            assert receiver._protocol.held == 0
            with pytest.raises(MessageTooLargeError):
                await receiver.send_to("x" * 65507, address)

    asyncio.run(main())


def test_catalogue_formats_carry_objects() -> None:
    codec = formats["lsp"].as_json()
    message = {"jsonrpc": "2.0", "id": 1}
    assert codec.decode(codec.encode(message)) == message
    with pytest.raises(FrameError):
        codec.decode(b"Content-Length: x\r\n\r\n")
    with pytest.raises(InvalidFrameError):
        codec.decode(codec.encode(1) + b"more")


# --- another codec --------------------------------------------------------------------------------


def test_switch_reads_what_is_undelivered_with_the_other_codec(engine: ModuleType) -> None:
    stream, _ = stream_of(PLAIN, 1, BAD, 2)
    splitter = engine.Splitter(JSON)
    assert splitter.feed(stream + b"\0") == [1]
    assert splitter.switch(PLAIN) == [BAD, b"2"]
    assert splitter.feed(b"\1x") == [b"x"]
    assert splitter.switch(JSON) == []
    with pytest.raises(InvalidMessageError) as caught:
        splitter.feed(PLAIN.encode(b"y") + PLAIN.encode(b"3"))
    assert caught.value.stream_offset == len(stream) + 3
    assert splitter.feed(b"") == [3]


def test_a_protocol_switches_to_objects_and_back() -> None:
    class Switching(Recorder):
        def messages_received(self, messages: list[Any]) -> None:
            self.outcome += messages
            if messages[-1] == b"objects":
                self.switch(JSON)
                self.send([1])
            elif messages[-1] == "bytes":
                self.switch(PLAIN)
                self.send(b"back")

        def message_invalid(self, error: InvalidMessageError) -> None:
            self.outcome.append(error.stream_offset)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        a, b = socket.socketpair()
        _, protocol = await loop.create_connection(
            lambda: Switching(PLAIN, ended, one_at_a_time=True), sock=a
        )
        with b:
            b.sendall(PLAIN.encode_many([b"objects", b"{}", BAD, b'"bytes"', b"{}"]))
            b.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(ended, TIMEOUT)
            assert protocol.outcome == [b"objects", {}, 13, "bytes", b"{}", None]
            assert PLAIN.split(b.recv(100))[0] == [b"[1]", b"back"]

    asyncio.run(main())


def test_a_connection_switches_to_objects_and_back() -> None:
    a, b = socket.socketpair()
    with a, FrameSocket(b, PLAIN) as conn:
        conn.settimeout(TIMEOUT)
        a.sendall(PLAIN.encode_many([b"first", b"[1]", BAD, b"[2]", b"[3]"]))
        assert conn.recv() == b"first"
        conn.switch(JSON)
        assert conn.codec == JSON
        assert conn.recv() == [1]
        with pytest.raises(InvalidMessageError) as caught:
            conn.recv()
        assert caught.value.stream_offset == 12
        conn.send({"a": 1})
        assert conn.recv_many() == [[2], [3]]
        a.sendall(PLAIN.encode(BAD))
        conn.switch(PLAIN)
        assert conn.recv() == BAD
        conn.send(b"raw")
        assert PLAIN.split(a.recv(100))[0] == [b'{"a":1}', b"raw"]


def test_an_observer_sees_the_frames_of_objects() -> None:
    class Sizes:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def frame_received(self, _: Any, size: int) -> None:
            self.seen.append(size)

        def frame_sent(self, _: Any, size: int) -> None:
            self.seen.append(-size)

    sizes = Sizes()
    a, b = socket.socketpair()
    with a, FrameSocket(b, JSON, observer=sizes) as conn:
        conn.settimeout(TIMEOUT)
        a.sendall(PLAIN.encode_many([b"[1]", BAD]))
        assert conn.recv() == [1]
        with pytest.raises(InvalidMessageError):
            conn.recv()
        conn.send([1, 2])
        conn.send_many([None])
    assert sizes.seen == [5, 6, -7, -6]


# --- what is rare ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "module"),
    [(lambda: PLAIN.as_msgpack(), "msgpack"), (lambda: PLAIN.as_struct(int), "msgspec")],
)
def test_a_missing_library_is_named_with_its_extra(
    make: Callable[[], Codec], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'needs {module}: pip install "framecodec\['):
        make()


def test_a_long_reason_is_cut(engine: ModuleType) -> None:
    def refuse(data: bytes) -> Any:
        raise ValueError("x" * 300)

    with pytest.raises(InvalidMessageError) as caught:
        engine.Splitter(PLAIN.with_objects(bytes, refuse)).feed(PLAIN.encode(b"a"))
    assert f"ValueError: {'x' * 200}... (the frame" in str(caught.value)


def test_a_lack_of_memory_in_loads_is_no_refusal(engine: ModuleType) -> None:
    def fail(data: bytes) -> Any:
        if data == b"bad":
            raise MemoryError
        return data

    codec = PLAIN.with_objects(bytes, fail)
    with pytest.raises(MemoryError):
        codec.decode(PLAIN.encode(b"bad"))
    with pytest.raises(MemoryError):
        codec.split(PLAIN.encode_many([b"good", b"bad"]))
    splitter = engine.Splitter(codec)
    assert splitter.feed(PLAIN.encode_many([b"good", b"bad"])) == [b"good"]
    with pytest.raises(MemoryError):
        splitter.feed(b"")


def test_a_refused_message_that_has_no_frame_has_no_header() -> None:
    """Another codec reads it than the one that would write it."""
    layout = Codec.uint(1, max_message_size=3).layout
    error = refused(ValueError("no"), b"too long", 0, None, layout)
    assert (error.header, error.size) == (b"", 8)


def test_messages_are_lost_only_with_an_error(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    splitter = engine.Splitter(JSON)
    monkeypatch.setattr(_objects, "frame_starts", fail)
    stream, _ = stream_of(PLAIN, BAD, 2)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            splitter.feed(stream)


def test_objects_before_lost_messages_are_delivered(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(_objects, "frame_starts", fail)
    splitter = engine.Splitter(JSON)
    assert splitter.feed(PLAIN.encode_many([b"1", b"2", BAD, b"3"])) == [1, 2]
    for _ in range(2):
        with pytest.raises(MemoryError):
            splitter.feed(b"")
    with pytest.raises(MemoryError, match="incomplete"):
        splitter.detach()


def test_messages_lost_after_held_ones_are_told_after_those(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    splitter = engine.Splitter(JSON)
    assert splitter.feed(PLAIN.encode_many([b"1", BAD, b"2"])) == [1]
    monkeypatch.setattr(_objects, "frame_starts", fail)
    with pytest.raises(InvalidMessageError):
        splitter.feed(PLAIN.encode(b"3"))
    assert splitter.feed(b"") == [2]
    for _ in range(2):
        with pytest.raises(MemoryError):
            splitter.feed(b"")
    with pytest.raises(MemoryError, match="incomplete"):
        splitter.detach()


def test_a_broken_stream_is_told_after_held_messages(engine: ModuleType) -> None:
    codec = Codec.uint(1, magic=b"M").as_json()
    splitter = engine.Splitter(codec)
    stream = b"M\0011" + b"M\4" + BAD + b"M\0012"
    assert splitter.feed(stream) == [1]
    with pytest.raises(InvalidMessageError):
        splitter.feed(b"broken")
    assert splitter.feed(b"") == [2]
    for _ in range(2):
        with pytest.raises(InvalidFrameError, match="magic"):
            splitter.feed(b"")


def test_messages_lost_before_a_broken_frame_are_told_as_that_frame(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    splitter = engine.Splitter(Codec.uint(1, magic=b"M").as_json())
    assert splitter.feed(b"M\0011" + b"M\4" + BAD) == [1]
    monkeypatch.setattr(_objects, "frame_starts", fail)
    with pytest.raises(InvalidMessageError):
        splitter.feed(b"M\0012" + b"broken")
    for _ in range(2):
        with pytest.raises(InvalidFrameError, match="magic"):
            splitter.feed(b"")


def test_a_lack_of_memory_for_the_error_about_a_message_loses_none(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(_objects, "refused", fail)
    splitter = engine.Splitter(JSON)
    assert splitter.feed(PLAIN.encode_many([b"1", BAD, b"2"])) == [1]
    for _ in range(2):
        with pytest.raises(MemoryError):
            splitter.feed(b"")
    assert splitter.detach() == PLAIN.encode_many([BAD, b"2"])


def test_a_switch_that_runs_out_of_memory_reads_held_messages_once(engine: ModuleType) -> None:
    def fail(*_: Any) -> int:
        raise MemoryError

    splitter = engine.Splitter(JSON)
    assert splitter.feed(PLAIN.encode_many([b"1", BAD, b"2"])) == [1]
    with pytest.raises(MemoryError):
        splitter.switch(Codec.uint(1, check=Check(fail, 1)))
    assert splitter.detach() == PLAIN.encode_many([BAD, b"2"])


ALIGNED = Codec.uint(1, align=8)


@pytest.mark.parametrize("arrived", [4, 5, 7, 8, 9])
def test_padding_of_an_undelivered_message_is_given_back_as_far_as_it_arrived(
    engine: ModuleType, arrived: int
) -> None:
    """The message comes before its padding."""
    codec = ALIGNED.with_objects(bytes, lambda data: json.loads(data))
    stream = ALIGNED.encode(b"1") + (ALIGNED.encode(b"bad") + b"\3")[:arrived]
    splitter = engine.Splitter(codec)
    assert splitter.feed(stream) == [1]
    assert splitter.detach() == stream[8:]
    splitter = engine.Splitter(codec)
    splitter.feed(stream)
    expected, rest = Codec.uint(1).split(stream[8:])
    assert splitter.switch(Codec.uint(1)) == expected
    assert splitter.detach() == stream[8 + rest :]


@pytest.mark.parametrize("with_objects", [False, True])
@pytest.mark.parametrize("arrived", [6, 7, 8, 9])
def test_detach_of_a_connection_gives_padding_back_as_far_as_it_arrived(
    engine_in_use: ModuleType, arrived: int, with_objects: bool
) -> None:
    codec = ALIGNED.replace()
    if with_objects:
        codec = codec.with_objects(bytes, json.loads)
    a, b = socket.socketpair()
    stream = ALIGNED.encode(b"1") + (ALIGNED.encode(b"12345") + b"\3")[:arrived]
    with b:
        conn = FrameSocket(a, codec)
        b.sendall(stream)
        assert conn.recv() == (1 if with_objects else b"1")
        sock, unread = conn.detach()
        sock.close()
    assert unread == stream[8:]


def test_read_of_objects_can_be_closed_before_its_end(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(JSON.encode_many([1, 2]))
    messages: Any = JSON.read(path)
    assert next(messages) == 1
    messages.close()
    assert list(messages) == []


class Failing:
    """A function for messages for which memory is short once, or more often."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def __call__(self, data: bytes) -> Any:
        if data == b"large" and self.failures:
            self.failures -= 1
            raise MemoryError
        return data.decode()


@LOOPS
def test_a_stream_that_is_short_of_memory_loses_no_object(loop: str) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        codec = PLAIN.with_objects(str.encode, Failing(2))
        with b:
            async with framecodec.asyncio.open_connection(sock=a, codec=codec) as stream:
                b.sendall(b"raw" + PLAIN.encode_many([b"large", b"small"]))
                assert await stream.recv_bytes(3) == b"raw"
                with pytest.raises(MemoryError):
                    await stream.recv_many()
                with pytest.raises(MemoryError):
                    await stream.recv()
                assert await stream.recv() == "large"
                assert await stream.recv_many() == ["small"]

    run(loop, main())


def test_a_protocol_that_is_short_of_memory_fails() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        complaints: list[Any] = []
        loop.set_exception_handler(lambda _, told: complaints.append(told))
        ended = loop.create_future()
        a, b = socket.socketpair()
        codec = PLAIN.with_objects(str.encode, Failing(1))
        with b:
            await loop.create_connection(lambda: Tolerant(codec, ended), sock=a)
            b.sendall(PLAIN.encode(b"large"))
            await asyncio.wait_for(ended, TIMEOUT)
        assert isinstance(complaints[0]["exception"], MemoryError)

    asyncio.run(main())


def test_a_protocol_switches_between_objects_and_a_refused_message() -> None:
    class Switching(Recorder):
        def messages_received(self, messages: list[Any]) -> None:
            self.outcome += messages
            if messages == [1]:
                self.switch(PLAIN)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        a, b = socket.socketpair()
        _, protocol = await loop.create_connection(lambda: Switching(JSON, ended), sock=a)
        with b:
            b.sendall(PLAIN.encode_many([b"1", BAD, b"2"]))
            b.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(ended, TIMEOUT)
        assert protocol.outcome == [1, BAD, b"2", None]

    asyncio.run(main())


def test_a_piece_that_was_noted_before_it_was_passed_moves_no_frame() -> None:
    """A signal can come after a splitter has noted that bytes are in no message."""
    codec = Codec.delimiter(b"\n", skip_empty=True)
    assert frame_starts(codec.layout, 6, [b"a", b"b"], None, [(2, 4), (6, 9)]) == [0, 4]
