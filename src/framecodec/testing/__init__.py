"""A test kit for users: prove that a program does not depend on how the network cuts a stream.

    from framecodec.testing import ChunkingProxy, chunkings, verify_codec

    verify_codec(my_codec, [b"", b"hello"])  # a codec by `Codec.custom`, or any other

    with ChunkingProxy(my_server.address, sizes=(1, 7)) as proxy:
        run_my_client(proxy.address)  # the same answers as without the proxy

`codecs` and `messages` are strategies for Hypothesis (``pip install "framecodec[testing]"``).
pytest finds the fixtures ``chunking_proxy`` and ``frame_pair`` by itself.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..codec import Codec
from .chunking import chunkings
from .promises import BrokenPromiseError, Promise
from .proxy import ChunkingProxy, Direction
from .verification import verify_codec

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "BrokenPromiseError",
    "ChunkingProxy",
    "Direction",
    "Promise",
    "chunkings",
    "codecs",
    "messages",
    "verify_codec",
]


def codecs() -> SearchStrategy[Codec]:
    """Return a Hypothesis strategy for codecs: all kinds, all parameters, and the catalogue.

    Each of them has messages of one size, or encodes at least one of at most 300 bytes: `messages`
    finds them.

    Raises:
        ImportError: Hypothesis is not installed.
    """
    strategy: SearchStrategy[Codec] = _strategies().codecs()
    return strategy


def messages(codec: Codec[Any], *, max_size: int = 64) -> SearchStrategy[Any]:
    """Return a Hypothesis strategy for messages that a codec encodes.

    Args:
        codec: The codec. Of one by `Codec.custom`, messages are found by trying.
        max_size: The size, in bytes, up to which messages are made at random. The codec's own
            smallest messages can be larger.

    Raises:
        ImportError: Hypothesis is not installed.
        ValueError: No message was found that the codec encodes.
    """
    strategy: SearchStrategy[Any] = _strategies().messages(codec, max_size)
    return strategy


def _strategies() -> ModuleType:
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'framecodec.testing needs Hypothesis for this: pip install "framecodec[testing]"',
            name="hypothesis",
        ) from error
    from . import strategies

    return strategies
