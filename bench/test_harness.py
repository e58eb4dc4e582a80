"""What becomes of a contender that cannot take part, and of one that gives wrong results."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from .harness import SMOKE, Case, Contender, WrongResult, measure
from .peers import Missing


def contender(name: str, run: Callable[[int], int]) -> Contender:
    """One whose work gives the number of its round back."""

    def check(result: int) -> None:
        if result < 0:
            raise WrongResult(name)

    return Contender(name, "peer", lambda number, times: (number,), run, check, units=1)


def case(*contenders: Contender) -> Case:
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
    weak = contender("weak", failing_in_round(number, failure))
    weak.close = lambda: closed.append("weak")
    scale = SMOKE.__class__(**(vars(SMOKE) | {"rounds": 3}))
    result = measure(case(contender("strong", abs), weak), scale, random.Random(1))
    assert list(result.samples) == ["strong"]
    assert len(result.samples["strong"]) == 3
    assert result.skipped == {"weak": "gone"}
    assert closed == ["weak"]
    assert "strong" in result.table()


def test_a_wrong_result_ends_the_run() -> None:
    with pytest.raises(WrongResult):
        measure(case(contender("liar", lambda number: -1)), SMOKE, random.Random(1))
