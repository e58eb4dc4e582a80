"""What every test may use: both engines, and Hypothesis that gives the same examples every time.

``pytest --no-c-extensions`` leaves the compiled engine out, for a package that was built without
it. Nothing else does: where the compiled engine should be there and is not, its tests fail instead
of vanishing.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import hypothesis
import pytest

import framecodec
from tests.helpers.descriptors import open_descriptors
from tests.helpers.engines import ENGINES, codecs_use
from tests.helpers.forked import run_in_fork
from tests.helpers.servers import MESSAGE_LOOPS, messages_loop

len(framecodec.formats)  # filled now: its codecs are of the engine that framecodec has chosen

LINE_TRACED = os.environ.get("FRAMECODEC_LINETRACE", "") not in ("", "0")
"""The compiled modules call a tracer at each line: the session `coverage` has built them so."""

# Deterministic, as every test here is; the fuzz campaign and the second profile look further.
hypothesis.settings.register_profile(
    "repeatable",
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
)
hypothesis.settings.register_profile(
    "searching", deadline=None, max_examples=3000, database=None, print_blob=True
)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-c-extensions",
        action="store_true",
        default=os.environ.get("FRAMECODEC_NO_EXTENSIONS", "") not in ("", "0"),
        help="leave out the tests of the compiled engine (default: FRAMECODEC_NO_EXTENSIONS)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "c_extension: needs the compiled engine")
    config.addinivalue_line("markers", "untraced: line tracing changes what this test is about")
    config.addinivalue_line("markers", "forked: in a process without other threads")


def pytest_report_header() -> str:
    return f"framecodec: {framecodec.__file__}, ACCELERATED={framecodec.ACCELERATED}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if LINE_TRACED:
        for item in items:
            if item.get_closest_marker("untraced"):
                item.add_marker(pytest.mark.skip(reason="the compiled modules have line tracing"))
    if config.getoption("--no-c-extensions"):
        unwanted = [item for item in items if item.get_closest_marker("c_extension")]
        items[:] = [item for item in items if not item.get_closest_marker("c_extension")]
        config.hook.pytest_deselected(items=unwanted)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if pyfuncitem.get_closest_marker("forked") is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    run_in_fork(pyfuncitem.obj, {name: pyfuncitem.funcargs[name] for name in names})
    return True


def pytest_collection_finish() -> None:
    # The tests themselves outlive every test: a garbage collection need not go through them all.
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()


@pytest.fixture(
    scope="session",
    params=["python", pytest.param("compiled", marks=pytest.mark.c_extension)],
)
def engine(request: pytest.FixtureRequest) -> ModuleType:
    """The module of an engine (`Splitter`, `Encoder`, `Spans`, `scan`): each test runs on both."""
    return importlib.import_module(ENGINES[request.param])


@pytest.fixture
def engine_in_use(engine: ModuleType) -> Iterator[ModuleType]:
    """As `engine`, and every `Codec` that the test makes uses this engine too."""
    with codecs_use(engine):
        yield engine


@pytest.fixture
def uninterrupted_engine(engine_in_use: ModuleType) -> None:
    """The engine into which no signal handler breaks; Python code has moments for one inside."""
    if engine_in_use.__name__.endswith("_py"):
        pytest.skip("the Python engine is Python code")
    if LINE_TRACED:
        pytest.skip("with line tracing, compiled code has moments for one inside, too")


@pytest.fixture(scope="session")
def both_engines() -> tuple[ModuleType, ModuleType]:
    """The engines side by side, for tests that compare them; mark such a test ``c_extension``."""
    python, compiled = (importlib.import_module(name) for name in ENGINES.values())
    return python, compiled


@pytest.fixture
def no_collection_callbacks() -> Iterator[None]:
    """Keep what a test lets fail out of the collector's callbacks; Hypothesis has one."""
    callbacks, gc.callbacks[:] = gc.callbacks[:], []
    yield
    gc.callbacks[:] = callbacks


@pytest.fixture(params=MESSAGE_LOOPS)
def message_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the loop of `serve_messages`, which uses it: each test runs on both twins."""
    module = messages_loop(request.param)
    monkeypatch.setattr("framecodec.serving.messages._loop_module", module)
    return module


@pytest.fixture
def no_garbage() -> None:
    """Close what earlier tests have left, before a test counts descriptors."""
    gc.collect()


@pytest.fixture
def fd_count(no_garbage: None) -> Callable[[], int]:
    """Return a function that counts the open descriptors; skip the test where none can."""
    if not open_descriptors():
        pytest.skip("no /proc")
    return open_descriptors


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that returns the texts that were logged, with their levels."""
    gc.collect()  # what the garbage of earlier tests logs is not of this one
    caplog.clear()
    caplog.set_level(logging.DEBUG, "framecodec")
    return lambda: [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
