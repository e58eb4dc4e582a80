"""Make a test of every contender in every case of a file.

``pytest bench`` measures, ``pytest bench --benchmark-disable`` runs each once on little data and
checks only the results.
"""

from __future__ import annotations

import pytest

from .harness import FULL, SMOKE, each


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"case", "name"} <= set(metafunc.fixturenames):
        smoke = metafunc.config.getoption("benchmark_disable")
        cases = metafunc.module.cases(SMOKE if smoke else FULL)
        metafunc.parametrize(("case", "name"), list(each(cases)))
