"""Contenders that cannot take part, and contenders with wrong results."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from .contenders import Missing
from .harness import SMOKE, Case, Entry, WrongResult, measure


def entry(name: str, run: Callable[[int], int]) -> Entry:
    """Return an entry whose work returns the number of its round."""

    def check(result: int) -> None:
        if result < 0:
            raise WrongResult(name)

    return Entry(name, "alternative", lambda number, times: (number,), run, check, units=1)


def case(*contenders: Entry) -> Case:
    return Case("split", "a case", {}, {each.name: lambda each=each: each for each in contenders})


def failing_in_round(number: int, failure: Exception) -> Callable[[int], int]:
    seen: list[int] = []

    def run(given: int) -> int:
        seen.append(given)
        if len(seen) > number:
            raise failure
        return given

    return run


@pytest.mark.parametrize("failure", [Missing("gone"), EOFError("gone"), TimeoutError("gone")])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_contender_that_fails_leaves_its_case(number: int, failure: Exception) -> None:
    closed = []
    weak = entry("weak", failing_in_round(number, failure))
    weak.close = lambda: closed.append("weak")
    scale = SMOKE.__class__(**(vars(SMOKE) | {"rounds": 3}))
    result = measure(case(entry("strong", abs), weak), scale, random.Random(1))
    assert list(result.samples) == ["strong"]
    assert len(result.samples["strong"]) == 3
    assert result.skipped == {"weak": "gone"}
    assert closed == ["weak"]
    assert "strong" in result.table()


def test_a_wrong_result_ends_the_run() -> None:
    with pytest.raises(WrongResult):
        measure(case(entry("liar", lambda number: -1)), SMOKE, random.Random(1))
