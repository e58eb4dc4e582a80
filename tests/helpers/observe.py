"""All that a caller can see of a splitter or an encoder, as plain data, to compare the engines."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from framecodec import Codec

__all__ = ["observe_encoder", "observe_splitter", "outcome_of"]


def outcome_of(call: Any, *arguments: Any) -> Any:
    """Return what a call returns, or all that a caller can see of what it raises."""
    try:
        return call(*arguments)
    except Exception as error:
        return type(error), str(error), error.args, {**vars(error)}


def observe_encoder(encoder: Any, messages: list[Any]) -> list[Any]:
    """Return all that a caller can see of an encoder and these messages."""
    return [
        outcome_of(encoder.encode_many, messages),
        outcome_of(encoder.encode_many, tuple(messages)),
        *(outcome_of(encoder.encode, message) for message in messages),
        *(
            outcome_of(lambda m: [bytes(part) for part in encoder.frame_parts(m)], m)
            for m in messages
        ),
    ]


def observe_splitter(
    engine: ModuleType, codec: Codec, pieces: list[bytes], ways: dict[str, Any], hand_over: Any
) -> list[Any]:
    """Return all that a caller can see of a splitter while it takes a stream to its end."""
    splitter = engine.Splitter(codec, **ways)
    seen: list[Any] = []
    for piece in [*pieces, b""]:
        seen.append(outcome_of(hand_over, splitter, piece))
        seen.append(visible(splitter))
    for call in (splitter.feed_eof, splitter.feed_eof, splitter.detach, splitter.detach):
        seen.append(outcome_of(call))
        seen.append(visible(splitter))
    return seen


def visible(splitter: Any) -> dict[str, Any]:
    names = [name for name in dir(splitter) if not name.startswith("_")]
    values = {name: getattr(splitter, name) for name in names}
    error = values.pop("error")
    values["error"] = error and (type(error), str(error), vars(error))
    return {name: value for name, value in values.items() if not callable(value)}
