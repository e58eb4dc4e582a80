"""A layout: the arithmetic that engines rely on without another look."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framecodec import Codec
from framecodec._layout import LARGEST_SIZE, MAX_VALUE, UINT, Layout
from tests.helpers.strategies import codecs

sizes = st.integers(0, 40)


@given(
    first=st.integers(-5, 5),
    limit=sizes,
    field_max=sizes,
    specials=st.sets(st.integers(0, 40), max_size=6),
)
def test_layout_quick_range_is_the_widest_without_special_values(
    first: int, limit: int, field_max: int, specials: set[int]
) -> None:
    layout = Layout(
        kind=UINT,
        field_width=1,
        adjustment=first,
        field_max=field_max,
        max_message_size=limit,
        specials=dict.fromkeys(specials),
    )
    good = [
        value
        for value in range(field_max + 1)
        if 0 <= value + first <= limit and value not in specials
    ]
    runs: list[list[int]] = [[]]
    for value in range(60):
        if value in good:
            runs[-1].append(value)
        else:
            runs.append([])
    widest = max(map(len, runs))
    low, span = layout.quick_range
    assert span == widest - 1
    if widest:
        assert list(range(low, low + span + 1)) in runs


@given(codecs())
def test_layout_numbers_fit_their_c_types(codec: Codec) -> None:
    layout = codec.layout
    low, span = layout.quick_range
    assert 0 <= low <= low + span <= MAX_VALUE
    # What the compiled engine adds without a thought: a size of a frame from quick values.
    largest_rest = (low + span) * layout.unit + layout.adjustment
    assert (low + span) * layout.unit < sys.maxsize
    assert 0 <= largest_rest <= LARGEST_SIZE
    extra = layout.longest_header + len(layout.trailer) + layout.align
    assert largest_rest + extra <= sys.maxsize
    assert -sys.maxsize <= layout.adjustment <= sys.maxsize


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        (Codec.uint(2), {"header_size": 2, "lead_size": 0, "rest_max": 65535}),
        (
            Codec.uint(2, magic=b"MM", length_offset=5, trailer=b"T"),
            {"header_size": 7, "lead_size": 3, "message_max": 65538},
        ),
        (
            Codec.uint(2, magic=b"M", length_offset=2, length_includes="frame", trailer=b"T"),
            {"adjustment": -5, "rest_max": 65530, "rest_min": 0},
        ),
        (Codec.digits(4, base=16), {"header_size": 4, "rest_max": 65535}),
        (Codec.digits(30), {"field_max": MAX_VALUE}),
        (Codec.varint(max_width=2), {"header_size": 0, "rest_max": 16383}),
        (Codec.varint(max_width=10), {"field_max": MAX_VALUE}),
        (Codec.uint(1, length_adjustment=5), {"rest_min": 5, "rest_max": 260}),
        (Codec.uint(8, max_message_size=None), {"rest_max": MAX_VALUE}),
        (Codec.uint(1, signed=True), {"field_max": 127, "message_max": 127}),
        (Codec.struct("<h"), {"field_max": 32767, "little": True, "signed": True}),
        (Codec.struct("N"), {"field_width": 8, "little": sys.byteorder == "little"}),
    ],
)
def test_layout_arithmetic_by_example(codec: Codec, expected: dict[str, Any]) -> None:
    found = {name: getattr(codec.layout, name) for name in expected}
    assert found == expected


def test_layout_is_frozen() -> None:
    layout = Codec.uint(2).layout
    with pytest.raises(dataclasses.FrozenInstanceError):
        layout.adjustment = 1  # type: ignore[misc]
