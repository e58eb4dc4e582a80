"""A short, repeatable run of the campaign, and that it would notice a defect."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

from tests.fuzz import run_case
from tests.helpers.engines import ENGINES


@pytest.mark.slow
def test_the_first_cases_pass_on_each_engine(engine: ModuleType) -> None:
    outcomes = {run_case([engine], seed) for seed in range(250)}
    # It reaches every kind, whole and broken.
    for kind in ("uint", "struct", "digits", "varint", "text", "headers", "custom"):
        assert {f"{kind}, whole", f"{kind}, InvalidFrameError"} <= outcomes
    assert "uint, MessageTooLargeError" in outcomes
    assert "varint, IncompleteFrameError" in outcomes


@pytest.mark.slow
@pytest.mark.c_extension
def test_the_next_cases_pass_with_the_engines_side_by_side() -> None:
    engines = [importlib.import_module(name) for name in ENGINES.values()]
    for seed in range(250, 500):
        run_case(engines, seed)


@pytest.mark.parametrize("defect", ["loses a byte", "changes a text", "forgets an offset"])
def test_the_campaign_notices_a_defect(engine: ModuleType, defect: str) -> None:
    class Wrong:
        def __init__(self, codec: Any, **choices: Any) -> None:
            self.right = engine.Splitter(codec, **choices)

        def __dir__(self) -> list[str]:
            return dir(self.right)

        def __getattr__(self, name: str) -> Any:
            if name == "stream_offset" and defect == "forgets an offset":
                return self.right.stream_offset % 16
            return getattr(self.right, name)

        def feed(self, data: Any) -> list[Any]:
            try:
                messages: list[Any] = self.right.feed(data)
            except Exception as error:
                if defect == "changes a text":
                    error.args = (f"{error} {len(data)}",)
                raise
            if defect == "loses a byte":
                return [m[:-1] if isinstance(m, bytes) and len(m) > 99 else m for m in messages]
            return messages

    module = ModuleType("wrong")
    module.Splitter, module.Encoder = Wrong, engine.Encoder  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        run_cases(module, 400)


def run_cases(engine: ModuleType, count: int) -> None:
    for seed in range(count):
        run_case([engine], seed)
