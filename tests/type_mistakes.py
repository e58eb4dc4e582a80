"""Mistakes that type checkers must find: each line that ends with ``# mistake`` is an error.

`tests.type_mistakes_check` runs mypy and pyright on this file, in the session `types` of nox. It is
never run.
"""

import socket
import sys
from collections.abc import Iterable

import framecodec
import framecodec.asyncio
from framecodec import Codec, DatagramSocket, FramePipe, FrameSocket, formats
from framecodec.anyio import FrameStream
from framecodec.catalogue import PktLine
from framecodec.serving import MessageConnection

# --- codecs ---------------------------------------------------------------------------------------

kafka: Codec = formats.kafka
kafka = formats.kafkaa  # mistake
git: Codec[bytes | PktLine] = formats.pkt_line
nothing: Codec[bytes | None] = formats["resp-bulk"]

codec = Codec.uint(4, max_message_size=10)
plain: Codec[bytes] = codec
codec.replace(max_message_size=1)
codec.replace(max_mesage_size=1)  # mistake
codec.replace(max_message_size="1")  # mistake
Codec.uint(4, max_mesage_size=1)  # mistake
Codec.uint(4, "middle")  # mistake
codec.as_json().decode("text")  # mistake

size: int = codec.encode(b"")  # mistake
frame: bytes = codec.encode(b"")
codec.encode(bytearray())
codec.encode(memoryview(b""))
codec.encode("text")  # mistake
codec.encode({"key": 1})  # mistake
codec.encode_many([b"", bytearray()])
codec.encode_many(["text"])  # mistake
number: int = codec.decode(b"")  # mistake

special = Codec.text(b"\r\n", specials={-1: None})
nullable: Codec[bytes | None] = special
special.encode(None)
special.encode(bytearray())
special.encode("text")  # mistake
codec.encode(None)  # mistake

Codec()  # mistake
Codec(4)  # mistake

tagged = Codec.choice({"request": (1, codec)}, tagged=True)
tagged.encode(("request", b""))
tagged.encode(b"")  # mistake


# --- objects --------------------------------------------------------------------------------------


class Point:
    """An object that a program sends."""


def dump(point: Point) -> bytes:
    """Return the bytes of a point."""
    raise NotImplementedError(point)


def load(data: bytes) -> Point:
    """Return the point that some bytes describe."""
    raise NotImplementedError(data)


def load_text(data: bytes) -> str:
    """Return the text that some bytes describe."""
    return data.decode()


points = codec.with_objects(dump, load)
points.encode(Point())
points.encode(b"")  # mistake
point: Point = points.decode(b"")
text: str = points.decode(b"")  # mistake
codec.with_objects(load, load_text)  # mistake
codec.with_objects(str.encode, load_text).encode("text")
codec.with_objects(str.encode, load_text).encode(b"")  # mistake
codec.as_json().encode({"key": [1, None]})
codec.as_struct(Point).encode(Point())
codec.as_struct(Point).encode("text")  # mistake
bytes_again: Codec[bytes] = points.without_objects()

# --- splitters ------------------------------------------------------------------------------------

splitter = codec.splitter(on_oversize="skip")
parts: list[bytes] = splitter.feed(bytearray())
splitter.feed("text")  # mistake
numbers: list[int] = splitter.feed(b"")  # mistake
splitter.buffer_updated(splitter.get_buffer())  # mistake
codec.splitter(on_oversize="drop")  # mistake
framecodec.Splitter("u32be")  # mistake

point_splitter: framecodec.Splitter[Point] = points.splitter()
point_list: list[Point] = point_splitter.feed(b"")
parts = point_splitter.buffer_updated(1)  # mistake
parts = points.splitter(raw=True).feed(b"")
parts = points.splitter().feed(b"")  # mistake
parts = framecodec.Splitter(points).feed_eof()  # mistake
parts = framecodec.Splitter(points).feed(b"")  # mistake
point_list = framecodec.Splitter(points).feed(b"")
nullables: list[bytes | None] = special.splitter().feed(b"")
parts = special.splitter().feed(b"")  # mistake
for point in points.read("points.bin"):
    points.encode(point)
for frame in points.read("points.bin", raw=True):
    frame.decode()
for frame in points.read("points.bin"):  # mistake
    print(frame)

# --- connections ----------------------------------------------------------------------------------

with framecodec.connect(("localhost", 6000)) as conn:
    conn.send(b"hello")
    conn.send(bytearray(b"hello"))
    conn.send("hello")  # mistake
    conn.send({"key": 1})  # mistake
    conn.send_many([b"hello", memoryview(b"hello")])
    conn.send_many(b"hello")  # mistake
    number = conn.recv()  # mistake
    message: bytes = conn.recv()
    conn.recv().foo()  # mistake
    messages: list[bytes] = conn.recv_many()
    for message in conn:
        message.decode().encode()
    conn.rcev()  # mistake

with framecodec.connect("localhost", 6000, codec=points) as point_conn:
    point_conn.send(Point())
    point_conn.send(b"hello")  # mistake
    point = point_conn.recv()
    message = point_conn.recv()  # mistake

framecodec.connect(("localhost", 6000), time_out=1)  # mistake

json_conn: FrameSocket[dict[str, int]] = framecodec.connect(("", 1), codec.as_json())
json_conn.send({"key": 1})
json_conn.send({"key": "value"})  # mistake

for accepted in framecodec.listen(("localhost", 0), points):
    accepted.send(Point())
    accepted.send("hello")  # mistake

pipe = FramePipe(sys.stdin.buffer)
pipe.send("hello")  # mistake
number = pipe.recv()  # mistake

datagrams = DatagramSocket(socket.socket())
datagrams.send_to("hello", ("localhost", 6000))  # mistake
datagrams.send_to(b"hello", ("localhost", 6000))
number = datagrams.recv()  # mistake


# --- servers --------------------------------------------------------------------------------------


def handle(conn: FrameSocket) -> None:
    """Serve a connection."""
    for message in conn:
        conn.send(message.upper())
        conn.send(message.decode())  # mistake


def handle_point(conn: FrameSocket[Point]) -> None:
    """Serve a connection that carries points."""
    conn.send(conn.recv())


def answer(conn: MessageConnection, messages: list[bytes]) -> Iterable[bytes]:
    """Answer the messages of a client."""
    conn.send("hello")  # mistake
    return [message.upper() for message in messages]


framecodec.serve(handle, ("localhost", 0)).broadcast(b"hello")
framecodec.serve(handle, ("localhost", 0)).broadcast("hello")  # mistake
framecodec.serve(handle_point, ("localhost", 0), points).broadcast(Point())
framecodec.serve(handle_point, ("localhost", 0), codec)  # mistake
framecodec.serve_messages(answer, ("localhost", 0)).broadcast("hello")  # mistake


async def serve_async(conn: FrameSocket) -> None:
    """Serve a connection, in a function that no thread can call."""
    conn.send(b"never")


async def answer_async(conn: MessageConnection, messages: list[bytes]) -> Iterable[bytes]:
    """Answer the messages of a client, in a function that no thread can call."""
    return messages


framecodec.serve(serve_async, ("localhost", 0))  # mistake
framecodec.serve_messages(answer_async, ("localhost", 0))  # mistake
framecodec.serve(lambda conn: conn.send(conn.recv()), ("localhost", 0))


async def use_streams() -> None:
    """Use the streams of event loops."""
    async with framecodec.asyncio.open_connection("localhost", 6000) as stream:
        await stream.send(b"hello")
        await stream.send("hello")  # mistake
        await stream.send_many([1])  # mistake
        message: bytes = await stream.recv()
        number: int = await stream.recv()  # mistake
        async for message in stream:
            message.decode().encode()
    points_stream = await framecodec.asyncio.open_connection(("localhost", 6000), points)
    point: Point = await points_stream.recv()
    await points_stream.send(point)
    await points_stream.send(message)  # mistake
    framecodec.asyncio.open_connection("localhost", 6000, ssll=None)  # mistake
    items = FrameStream(stream, points)
    await items.send(await items.receive())
    await items.send("hello")  # mistake
    print(number)


async def handle_stream(stream: framecodec.asyncio.FrameStream) -> None:
    """Serve a stream."""
    async for message in stream:
        await stream.send(message.upper())
        await stream.send(message.decode())  # mistake


framecodec.asyncio.start_server(handle_stream, "localhost", 0)
framecodec.asyncio.start_server(handle_stream, ("localhost", 0), points)  # mistake
framecodec.asyncio.start_server(handle, ("localhost", 0))  # mistake


class Echo(framecodec.asyncio.FrameProtocol):
    """Echo each message."""

    def messages_received(self, messages: list[bytes]) -> None:
        """Send them back."""
        self.send_many(messages)
        self.send("hello")  # mistake
