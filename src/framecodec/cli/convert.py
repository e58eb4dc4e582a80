"""``framecodec encode`` and ``framecodec decode``: lines to frames, and frames to lines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from .. import Codec, FrameError
from .common import (
    CommandError,
    add_codec,
    add_command,
    chunks,
    open_input,
    parse_hex,
    readable,
    watched,
    write,
)

__all__ = ["add_commands", "frame_object"]


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands ``encode`` and ``decode``."""
    encode = add_command(
        commands,
        "encode",
        _encode,
        help="lines to frames",
        description="Read lines and write a frame for each. A line's end (\\n) is not part of the "
        "message.",
    )
    decode = add_command(
        commands,
        "decode",
        _decode,
        help="frames to lines",
        description="Read frames and write each message as a line. Bytes that are not printable "
        "UTF-8 are written as \\xff; --hex and --json lose nothing.",
    )
    for parser, json_help in (
        (encode, 'lines are objects with a member "message" in hexadecimal, as decode writes them'),
        (decode, 'lines are objects with "index", "offset", "size" and "message" (hexadecimal)'),
    ):
        add_codec(parser)
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--hex", action="store_true", help="lines are hexadecimal")
        form.add_argument("--json", action="store_true", help=json_help)
        parser.add_argument("file", metavar="FILE", nargs="?", help="default: standard input")


# --- encode ---------------------------------------------------------------------------------------


def _encode(arguments: argparse.Namespace) -> int:
    codec: Codec[Any] = arguments.codec
    number = 0
    if sys.stdout is None:
        raise CommandError("there is no standard output")
    with open_input(arguments.file) as file, watched(file, "encode") as advance:
        limit = codec.max_message_size
        # A line of JSON or hexadecimal digits is longer than its message.
        longest = (
            None if limit is None else (4 * limit if arguments.hex or arguments.json else limit)
        )
        for lines in _lines(_counted(chunks(file), advance), longest):
            frames = []
            try:
                for line in lines:
                    number += 1
                    frames.append(codec.encode(_message_of(line, arguments, codec)))
            except (FrameError, ValueError) as error:
                sys.stdout.buffer.write(b"".join(frames))
                raise CommandError(f"line {number}: {error}") from None
            sys.stdout.buffer.write(b"".join(frames))
            sys.stdout.buffer.flush()  # a reader may wait for the frames of these lines
    return 0


def _counted(data: Iterable[bytes], advance: Any) -> Iterator[bytes]:
    for chunk in data:
        advance(len(chunk))
        yield chunk


def _lines(data: Iterable[bytes], limit: int | None) -> Iterator[list[bytes]]:
    """Yield the lines that each chunk completes, without their ends.

    A line longer than the limit is given in its incomplete length, so that memory is bounded and
    `Codec.encode` refuses it.
    """
    unfinished: list[bytes] = []
    size = 0
    for chunk in data:
        first, *others = chunk.split(b"\n")
        unfinished.append(first)
        size += len(first)
        if others:
            yield [b"".join(unfinished), *others[:-1]]
            unfinished, size = [others[-1]], len(others[-1])
        if limit is not None and size > limit + 16:
            break
    if size:
        yield [b"".join(unfinished)]


def _message_of(line: bytes, arguments: argparse.Namespace, codec: Codec[Any]) -> object:
    if arguments.hex:
        return parse_hex(line.decode("ascii", "replace"))
    if arguments.json:
        return _message_of_json(line, codec)
    return line


def _message_of_json(line: bytes, codec: Codec[Any]) -> object:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        if isinstance(found.get("message"), str):
            return parse_hex(found["message"])
        for special in (codec.parameters.get("specials") or {}).values():
            if found.get("special") == repr(special):
                return special
    raise ValueError(
        f'{line[:40]!r} is not an object with "message" in hexadecimal, such as '
        '{"message": "68656c6c6f"}'
    )


# --- decode ---------------------------------------------------------------------------------------


def frame_object(index: int, offset: int, size: int, message: object) -> dict[str, object]:
    """Return the members that ``--json`` prints for a frame.

    Args:
        index: The frame's number, from 0.
        offset: The position of its first byte in the stream.
        size: Bytes of the whole frame.
        message: Its message, bytes or one of the codec's special objects.
    """
    shown: dict[str, object] = {"index": index, "offset": offset, "size": size}
    if isinstance(message, bytes):
        return {**shown, "message": message.hex()}
    return {**shown, "message": None, "special": repr(message)}


def _decode(arguments: argparse.Namespace) -> int:
    with open_input(arguments.file) as file, watched(file, "decode") as advance:
        if arguments.json:
            _decode_to_json(arguments.codec, file, advance)
        else:
            _decode_to_lines(arguments.codec, file, advance, as_hex=arguments.hex)
    return 0


def _decode_to_lines(codec: Codec[Any], file: BinaryIO, advance: Any, *, as_hex: bool) -> None:
    splitter = codec.splitter()
    for chunk in chunks(file):
        messages = splitter.feed(chunk)
        for message in messages:
            is_hex = as_hex and isinstance(message, bytes)
            write((message.hex() if is_hex else readable(message)) + "\n")
        if messages and sys.stdout is not None:
            sys.stdout.flush()
        _raise_if_broken(splitter)
        advance(len(chunk))
    splitter.feed_eof()


def _decode_to_json(codec: Codec[Any], file: BinaryIO, advance: Any) -> None:
    splitter = codec.splitter(raw=True)
    index = offset = 0
    for chunk in chunks(file):
        frames = splitter.feed(chunk)
        for frame in frames:
            found = frame_object(index, offset, len(frame), codec.decode(frame))
            write(json.dumps(found) + "\n")
            index += 1
            offset += len(frame)
        if frames and sys.stdout is not None:
            sys.stdout.flush()
        _raise_if_broken(splitter)
        advance(len(chunk))
    splitter.feed_eof()


def _raise_if_broken(splitter: Any) -> None:
    if splitter.error is not None:
        raise splitter.error
