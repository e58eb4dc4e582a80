"""The pytest plugin: its fixtures, and that it costs nothing where they are not used."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import framecodec
from framecodec import Codec
from pytest_framecodec import FramePairs, Proxies

ROOT = Path(__file__).parents[1]
SOURCE = Path(framecodec.__file__).parents[1]


def run_pytest(folder: Path, program: str, *arguments: str) -> str:
    """Run pytest on a test file in a new process; return the exit code and the output."""
    (folder / "test_user.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(SOURCE), "PYTEST_ADDOPTS": "", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return f"{done.returncode}\n{done.stdout}\n{done.stderr}"


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    (point,) = importlib.metadata.entry_points(group="pytest11", name="framecodec")
    assert point.value == "pytest_framecodec"
    assert point.load().__name__ == "pytest_framecodec"


@pytest.mark.slow
def test_the_plugin_imports_nothing_of_framecodec_before_a_fixture_is_used(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import sys\n"
        "def pytest_sessionstart(session):\n"
        "    assert session.config.pluginmanager.has_plugin('framecodec')\n"
        "    assert 'framecodec' not in sys.modules\n",
        encoding="utf-8",
    )
    program = "import sys\ndef test(): assert 'framecodec' not in sys.modules"
    assert run_pytest(tmp_path, program).startswith("0\n")


@pytest.mark.slow
def test_the_plugin_can_be_left_out(tmp_path: Path) -> None:
    program = "def test(frame_pair): pass"
    output = run_pytest(tmp_path, program, "-p", "no:framecodec")
    assert "fixture 'frame_pair' not found" in output


def test_framecodec_does_not_import_pytest() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None;"
        "import framecodec, framecodec.testing, framecodec.asyncio, framecodec.socketserver"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        timeout=60,
        check=True,
    )


@pytest.mark.slow
def test_the_example_of_the_page_about_testing_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")
    (program,) = re.findall(
        r"^<!-- run by tests/test_testing_pytest.py -->\n```python\n(.*?)^```$",
        page,
        re.MULTILINE | re.DOTALL,
    )
    assert "6 passed" in run_pytest(tmp_path, program, "-W", "error")


# --- frame_pair -----------------------------------------------------------------------------------


def test_frame_pair_is_a_connected_pair(frame_pair: FramePairs) -> None:
    left, right = frame_pair
    left.send(b"hello")
    assert right.recv() == b"hello"
    assert [*frame_pair] == [left, right]
    assert (frame_pair[0], frame_pair[1], len(frame_pair)) == (left, right, 2)
    assert left.codec == Codec.uint(4)
    assert left.gettimeout() == 10


@pytest.mark.parametrize("frame_pair", [Codec.digits(4), Codec.varint()], indirect=True)
def test_frame_pair_takes_a_codec_as_its_parameter(
    frame_pair: FramePairs, request: pytest.FixtureRequest
) -> None:
    left, right = frame_pair
    codec = request.node.callspec.params["frame_pair"]
    assert left.codec == right.codec == frame_pair()[0].codec == codec
    assert frame_pair(Codec.uint(2))[0].codec == Codec.uint(2)


def test_frame_pair_makes_pairs_with_options(frame_pair: FramePairs) -> None:
    left, right = frame_pair(Codec.uint(1), timeout=None, on_oversize="skip")
    other, _ = frame_pair(Codec.uint(1))
    assert left.gettimeout() is None
    assert other is not left
    left.send(b"hello")
    assert right.recv() == b"hello"


@pytest.mark.slow
def test_the_fixtures_close_what_they_made(tmp_path: Path) -> None:
    program = """
import threading
conns, proxies = [], []
def test_first(frame_pair, chunking_proxy):
    conns.extend([*frame_pair, *frame_pair()])
    proxies.append(chunking_proxy(("127.0.0.1", 1)))
    proxies.append(chunking_proxy(("127.0.0.1", 1), sizes=(1, 1)))
    assert threading.active_count() == 3
def test_second():
    assert len(conns) == 4
    assert all(conn.closed and conn.socket.fileno() == -1 for conn in conns)
    assert all("closed" in repr(proxy) for proxy in proxies)
    assert threading.active_count() == 1
"""
    assert "2 passed" in run_pytest(tmp_path, program, "-W", "error")


# --- chunking_proxy -------------------------------------------------------------------------------


def test_chunking_proxy_cuts_what_passes_through(chunking_proxy: Proxies) -> None:
    pieces: list[bytes] = []
    with framecodec.listen(("127.0.0.1", 0)) as listener:
        proxy = chunking_proxy(
            listener.address, sizes=(1, 3), observe=lambda _, data: pieces.append(data)
        )
        with framecodec.connect(proxy.address, timeout=10) as conn, listener.accept() as peer:
            peer.settimeout(10)
            conn.send(b"hello")
            assert peer.recv() == b"hello"
    assert b"".join(pieces) == Codec.uint(4).encode(b"hello")
    assert 1 <= max(map(len, pieces)) <= 3
