"""Find the checksum of frames whose boundaries are known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from .._check import CHECKSUMS, Check
from ..codec import Codec
from ..errors import FrameError
from .shapes import Shape

__all__ = ["checked_codecs"]

_FRAMES = 32  # that are verified
_FEWEST_BITS = 24.0  # that the checks of different frames must have together
_LARGEST = 65536  # bytes of a frame


def checked_codecs(
    data: bytes, starts: Sequence[int], shapes: Sequence[Shape], prefix: bytes
) -> Iterator[Codec]:
    """Yield the codecs of shapes under which a checksum of every frame is right.

    Args:
        data: The capture.
        starts: The position of each frame's first byte, and of the byte after the last frame.
        shapes: The shapes with these boundaries, the plainest first.
        prefix: The bytes with which all frames begin.
    """
    frames = [data[start:stop] for start, stop in itertools.pairwise(starts)]
    frames = list(dict.fromkeys(frames[:_FRAMES]))
    if max(map(len, frames)) > _LARGEST:
        return
    for check in _checks(len(frames)):
        for shape in shapes:
            for magic in {prefix[: shape.offset], b""}:
                codec = _checked(shape, magic, check)
                if codec is not None and _explains(codec, frames):
                    yield codec
                    return


def _checks(frames: int) -> Iterator[Check]:
    for name, checksum in CHECKSUMS.items():
        if checksum.bits * frames < _FEWEST_BITS:
            continue
        for order in ("big", "little")[: 1 if checksum.bits == 8 else 2]:
            for covers in ("message", "body", "frame", "rest"):
                yield Check(name, checksum.bits // 8, order, covers=covers)  # type: ignore[arg-type]
            for covers in ("message", "rest"):
                yield Check(name, checksum.bits // 8, order, covers=covers, position="front")  # type: ignore[arg-type]


def _checked(shape: Shape, magic: bytes, check: Check) -> Codec | None:
    try:
        return shape.codec(magic, check=check)
    except (ValueError, TypeError):
        return None


def _explains(codec: Codec, frames: Sequence[bytes]) -> bool:
    try:
        for frame in frames:
            codec.decode(frame)
    except FrameError:
        return False
    return True
