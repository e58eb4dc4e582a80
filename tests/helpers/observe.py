"""All that can be seen of a splitter or an encoder, as plain data: for comparing the engines."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from framecodec import Codec

__all__ = ["encodings", "story", "told"]


def told(call: Any, *arguments: Any) -> Any:
    """What a call returns, or all that can be seen of what it raises."""
    try:
        return call(*arguments)
    except Exception as error:
        return type(error), str(error), error.args, {**vars(error)}


def encodings(encoder: Any, messages: list[Any]) -> list[Any]:
    """All that can be seen of an encoder that is given these messages."""
    return [
        told(encoder.encode_many, messages),
        told(encoder.encode_many, tuple(messages)),
        *(told(encoder.encode, message) for message in messages),
        *(told(lambda m: [bytes(part) for part in encoder.frame_parts(m)], m) for m in messages),
    ]


def story(
    engine: ModuleType, codec: Codec, pieces: list[bytes], ways: dict[str, Any], hand_over: Any
) -> list[Any]:
    """All that can be seen of a splitter while it takes a stream to its end."""
    splitter = engine.Splitter(codec, **ways)
    seen: list[Any] = []
    for piece in [*pieces, b""]:
        seen.append(told(hand_over, splitter, piece))
        seen.append(visible(splitter))
    for call in (splitter.feed_eof, splitter.feed_eof, splitter.detach, splitter.detach):
        seen.append(told(call))
        seen.append(visible(splitter))
    return seen


def visible(splitter: Any) -> dict[str, Any]:
    names = [name for name in dir(splitter) if not name.startswith("_")]
    values = {name: getattr(splitter, name) for name in names}
    error = values.pop("error")
    values["error"] = error and (type(error), str(error), vars(error))
    return {name: value for name, value in values.items() if not callable(value)}
