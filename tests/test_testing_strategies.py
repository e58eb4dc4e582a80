"""`codecs` and `messages`: Hypothesis strategies for users."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import framecodec
from framecodec import Codec, InvalidFrameError, formats
from framecodec.testing import codecs, messages, verify_codec
from tests.helpers.engines import codecs_use

SOURCE = Path(framecodec.__file__).parents[1]


@pytest.mark.slow
@settings(max_examples=50)
@given(st.data())
def test_messages_are_encoded_by_their_codec(data: st.DataObject) -> None:
    codec = data.draw(codecs())
    message = data.draw(messages(codec))
    assert codec.decode(codec.encode(message)) == message


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_verify_codec_accepts_every_codec(engine: ModuleType, data: st.DataObject) -> None:
    with codecs_use(engine):
        codec = data.draw(codecs()).replace()
        verify_codec(codec, data.draw(st.lists(messages(codec, max_size=20), max_size=3)))


def found_by(strategy: st.SearchStrategy[Any], wanted: Any) -> Any:
    quick = settings(
        max_examples=500, derandomize=True, database=None, phases=[hypothesis.Phase.generate]
    )
    return hypothesis.find(strategy, wanted, settings=quick)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        *("uint", "struct", "digits", "varint", "ber", "text", "headers", "fixed", "delimiter"),
        *("cobs", "choice", "joined", "custom"),
    ],
)
def test_codecs_have_every_kind(kind: str) -> None:
    assert found_by(codecs(), lambda codec: codec.kind == kind)


@pytest.mark.parametrize(
    "parameter", ["magic", "trailer", "specials", "length_adjustment", "max_message_size"]
)
def test_codecs_have_every_parameter(parameter: str) -> None:
    default = Codec.uint().parameters[parameter]
    assert found_by(codecs(), lambda codec: codec.parameters[parameter] != default)


@pytest.mark.slow
@pytest.mark.parametrize("name", formats)
def test_messages_are_found_for_every_format(name: str) -> None:
    if name == "http2-preface":  # a constant: there is one message
        assert found_by(messages(formats[name]), lambda message: message.startswith(b"PRI * HTTP"))
        return
    two = st.tuples(messages(formats[name]), messages(formats[name]))
    assert found_by(two, lambda pair: pair[0] != pair[1])


@pytest.mark.parametrize(
    ("codec", "start"),
    [
        (formats.sip, b"SIP/2.0 200 OK\r\n"),
        (Codec.headers("L", start_line=(b"A/1", b"B/1"), keep=True), b"PING * A/1\r\n"),
        (Codec.headers("L", start_line=True, keep=True), b"start line\r\nL: 5\r\n\r\nhello"),
        (Codec.headers("L", line_end=b"\n", keep=True), b"L: 5\n\nhello"),
    ],
)
def test_messages_have_kept_header_blocks(codec: Codec, start: bytes) -> None:
    assert found_by(messages(codec), lambda message: message.startswith(start))


def test_messages_have_specials_and_sizes_up_to_max_size() -> None:
    codec = Codec.uint(1, specials={0: None})
    assert found_by(messages(codec), lambda message: message is None) is None
    assert found_by(messages(codec, max_size=9), lambda message: message and len(message) == 9)


def parse_never(view: memoryview) -> None:
    return None


def build_never(message: memoryview) -> bytes:
    raise InvalidFrameError("no message is right")


def test_messages_raise_if_no_message_is_found() -> None:
    with pytest.raises(ValueError, match=r"no message was found that Codec\.custom"):
        messages(Codec.custom(parse_never, build_never))
    with pytest.raises(ValueError, match=r"no message was found that Codec\.custom"):
        messages(Codec.custom(parse_never, build_never, max_header=1000))


def test_messages_of_a_header_block_keep_the_limit() -> None:
    codec = Codec.headers(keep=True, start_line=True, max_message_size=35)
    found = found_by(messages(codec), lambda message: message.startswith(b"start line"))
    assert len(found) <= 35
    assert codec.decode(codec.encode(found)) == found


@pytest.mark.parametrize("call", [codecs, lambda: messages(Codec.uint())])
def test_strategies_raise_without_Hypothesis(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r'pip install "framecodec\[testing\]"') as caught:
        call()
    assert caught.value.name == "hypothesis"


def parse_odd(view: memoryview) -> tuple[int, int] | None:
    """Read a header that trying whole messages does not find: five bytes that depend on a sum."""
    for pos, byte in enumerate(view[:4]):
        if byte != 7 * pos + 3:
            raise ValueError("a wrong byte")
    return (5, 0) if len(view) >= 5 else None


def build_odd(message: memoryview) -> tuple[bytes, int]:
    raise InvalidFrameError("its messages are those that parse_odd reads")


def parse_magic(view: memoryview) -> tuple[int, int, bytes] | None:
    for byte, wanted in zip(view, b"magic", strict=False):
        if byte != wanted:
            raise ValueError("a wrong byte")
    return (6, view[5], bytes(view[:5])) if len(view) >= 6 else None


def build_magic(message: memoryview) -> tuple[bytes, int]:
    if message[:5] != b"magic" or len(message) > 260:
        raise InvalidFrameError("a message begins with the word magic")
    return bytes([*message[:5], len(message) - 5]), 5


def test_messages_are_found_byte_by_byte() -> None:
    strategy = messages(Codec.custom(parse_magic, build_magic), max_size=9)
    assert found_by(strategy, lambda message: len(message) > 5).startswith(b"magic")
    with pytest.raises(ValueError, match="no message was found"):
        messages(Codec.custom(parse_odd, build_odd))


def test_strategies_name_what_to_install_where_Hypothesis_is_missing() -> None:
    program = """
import sys
sys.modules["hypothesis"] = None
from framecodec.testing import chunkings, codecs, messages
from framecodec import Codec
for call in (codecs, lambda: messages(Codec.uint())):
    try:
        call()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    line = 'framecodec.testing needs Hypothesis for this: pip install "framecodec[testing]"\n'
    assert done.stdout == line * 2
    assert done.stderr == ""
