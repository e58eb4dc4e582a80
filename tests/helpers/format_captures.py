"""Captures of the protocols of the catalogue, made from the vectors."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from framecodec import FrameError, formats

# Formats that have nothing but an end mark: in other bytes it is one byte of many.
TEXTS = {"lines", "nul", "ndjson", "ssh-version"}
VECTORS = Path(__file__).parents[1] / "vectors"


def _bytes(data: Any) -> bytes:
    if isinstance(data, str):
        return bytes.fromhex(data)
    if isinstance(data, list):
        return b"".join(map(_bytes, data))
    return bytes.fromhex(data["repeat"]) * int(data["count"])


def vector_frames(name: str) -> list[bytes]:
    """Return the valid frames of a protocol's vectors, without the very large ones."""
    frames: list[bytes] = []
    for vector in json.loads((VECTORS / f"{name}.json").read_text("utf-8"))["valid"]:
        if vector.get("byteorder", sys.byteorder) == sys.byteorder:
            splitter = formats[name].splitter(raw=True)
            frames += [f for f in splitter.feed(_bytes(vector["stream"])) if len(f) < 3000]
    return frames


def repeated(name: str, count: int, seed: int) -> list[bytes]:
    """Return frames of the vectors, chosen at random."""
    r = random.Random(f"{name} {seed}")
    frames = vector_frames(name)
    return [frames[0], *(r.choice(frames) for _ in range(count - 1))]


def varied(name: str, count: int, seed: int) -> list[bytes]:
    """Return frames with the first bytes of those of the vectors and contents of many sizes."""
    codec, r = formats[name], random.Random(f"{name} {seed}")
    messages = [codec.decode(frame) for frame in vector_frames(name)]
    messages = [message for message in messages if isinstance(message, bytes)]
    parameters = codec.parameters
    kept = (parameters.get("length_offset") or 0) - len(parameters.get("magic") or b"")
    kept = max(0, kept) + max(0, parameters.get("length_adjustment") or 0) + 8
    frames: list[bytes] = []
    for _ in range(200 * count):
        if len(frames) == count:
            break
        message = r.choice(messages)
        message = message[: max(kept, r.randrange(len(message) + 1))]
        size = int(r.lognormvariate(3, 1))
        if r.random() < 0.5 and name not in TEXTS:
            message += r.randbytes(size)
        else:
            message += bytes(r.choices(b"etaoin shrdlu", k=size))
        try:
            frame = codec.encode(message)
            if codec.decode(frame) == message:
                frames.append(frame)
        except FrameError:
            continue
    # Text protocols refuse most contents: their frames are those of the vectors.
    return frames if len(frames) == count else repeated(name, count, seed)
