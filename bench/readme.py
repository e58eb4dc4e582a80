"""The README's block about speed: pictures, a table, and where framecodec does not win.

Every figure comes from the results; `python -m bench.report --readme` writes it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .harness import Results, first_of
from .sources import KIB, MIB, size_name

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "benchmarks"
CLEARLY = 0.95  # below it the other one is faster, and not just luckier
TIMES = "\N{MULTIPLICATION SIGN}"
SIZES = (16, 64, KIB, 64 * KIB, MIB, 16 * MIB)
BLOCK = re.compile(r"(?<=<!-- benchmarks -->\n).*?(?=<!-- /benchmarks -->)", re.DOTALL)

# Of the machine's facts, those that are named.
VERSIONS = (
    *("Cython", "msgpack", "picows", "pyzmq", "Twisted", "uvloop"),
    *("Rust", "tokio-util", "Java", "Netty"),
)

# Of the report's pictures, those that are shown.
SHOWN = {
    "split-64-kib-hot": "Messages a second that are split in memory, over the size of a message",
    "stream-tcp": "Messages a second that are received over TCP, over the size of a message",
    "servers": "Replies a second of echo servers, as multiples of a server in Rust",
}


@dataclass
class Comparison:
    """One line of the table: what framecodec is compared with."""

    name: str  # for people
    contender: str  # in the results; the fastest of this beginning where it ends in ``*``
    ours: tuple[str, ...] = ("framecodec",)


@dataclass
class Work:
    """What is done, and what framecodec is compared with."""

    name: str
    title: str
    question: str
    axes: dict[str, Any]
    comparisons: list[Comparison]
    verb: str = ""  # how the case's label begins, where a question has several
    sizes: tuple[int, ...] = field(default=SIZES)


_OURS_TCP = ("framecodec, for m in conn", "framecodec, recv_many")
_OURS_LOOP = ("FrameStream, async for", "FrameStream, recv_many")
WORKS = [
    Work(
        "splitting",
        "Splitting in memory, 64 KiB at a time",
        "split",
        {"chunk": "64 KiB, hot"},
        [
            Comparison("C by hand on the CPython API", "C floor"),
            Comparison("Rust, tokio-util, a `Vec` a message", "tokio-util, Vec"),
            Comparison("Rust, tokio-util, `Bytes` (views, no copy)", "tokio-util, Bytes"),
            Comparison("Java, Netty, a `byte[]` a message", "Netty, byte[]"),
            Comparison("Java, Netty, slices (views, no copy)", "Netty, slice"),
            Comparison("msgpack's `Unpacker`", "msgpack*"),
            Comparison("a tuned loop in Python", "tuned Python"),
            Comparison("Twisted's `Int32StringReceiver`", "Twisted*"),
        ],
    ),
    Work(
        "encoding",
        "Encoding batches of 64 KiB",
        "encode",
        {"how": "a batch of 64 KiB"},
        [
            Comparison("C by hand on the CPython API", "C floor"),
            Comparison("Rust, tokio-util, a new buffer", "tokio-util, new buffer"),
            Comparison("a tuned `join` in Python", "tuned Python"),
        ],
    ),
    Work(
        "TCP",
        "Receiving over TCP, every message looked at",
        "stream",
        {"family": "TCP"},
        [
            Comparison("a tuned loop in Python", "tuned Python", _OURS_TCP),
            Comparison("`makefile().read`", "makefile*", _OURS_TCP),
            Comparison("the tutorial's `recv(4)`, `recv(n)`", "recv header, recv body", _OURS_TCP),
            Comparison("`multiprocessing.connection`", "multiprocessing*", _OURS_TCP),
            Comparison("pyzmq", "pyzmq*", _OURS_TCP),
            Comparison("picows", "picows", _OURS_TCP),
        ],
    ),
    Work(
        "round trips",
        "A round trip, both ends on one core",
        "roundtrip",
        {"family": "TCP", "timeout": False},
        [Comparison("`send` and `recv` of a socket", "raw socket", ("framecodec, recv",))],
    ),
    Work(
        "round trips with a time-out",
        "The same with a time-out",
        "roundtrip",
        {"family": "TCP", "timeout": True},
        [Comparison("`send` and `recv` of a socket", "raw socket", ("framecodec, recv",))],
    ),
    Work(
        "asyncio, receiving",
        "asyncio, receiving",
        "asyncio",
        {"family": "TCP"},
        [
            Comparison("asyncio's streams", "asyncio streams", _OURS_LOOP),
            Comparison("uvloop's streams", "uvloop streams", ("FrameStream, recv_many (uvloop)",)),
        ],
        verb="receive",
    ),
    Work(
        "asyncio, sending",
        "asyncio, sending",
        "asyncio",
        {"family": "TCP"},
        [Comparison("asyncio's streams", "asyncio streams", ("FrameStream, send",))],
        verb="send",
    ),
]


def write(results: Results, facts: dict[str, str], pictures: list[Path]) -> None:
    """Write the block into the README, and copy the pictures that it shows."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        if picture.stem in SHOWN:
            (PICTURES / picture.name).write_bytes(picture.read_bytes())
    page = README.read_text("utf-8")
    assert BLOCK.search(page)
    README.write_text(BLOCK.sub(lambda _: block(results, facts), page), "utf-8")


def block(results: Results, facts: dict[str, str]) -> str:
    """Return the text between the two marks."""
    rows, losses = _table(results)
    shown = [
        f"![{title}](docs/benchmarks/{stem}.svg)"
        for stem, title in SHOWN.items()
        if (PICTURES / f"{stem}.svg").exists()
    ]
    versions = ", ".join(
        f"{name} {facts[name]}" for name in VERSIONS if name in facts and facts[name][0].isdigit()
    )
    words = [
        "How many times as fast as the others framecodec is, by the size of a message (medians of "
        "rounds in which all contenders take turns, results checked):",
        f"Others are clearly faster at: {'; '.join(losses) or 'nothing in this table'}. Over "
        "TCP, from 64 KiB up, most contenders lie close together and vary much between rounds."
        + _memory(results),
        f"`{facts['command']}`, {facts['when']}, on {facts['processor']}, {facts['system']}, "
        f"{facts['Python']}, {versions}; framecodec {facts['framecodec']}. The command also writes "
        "a report with all figures, their spread, and every aim that was missed; "
        "[bench/](bench/README.md) says how, and how to compare two commits.",
    ]
    before, losing, machine = map(_filled, words)
    return "\n\n".join([*shown, before, rows, losing, *_servers(results), machine]) + "\n"


def _filled(text: str) -> str:
    return textwrap.fill(text, 104, break_long_words=False, break_on_hyphens=False)


def _table(results: Results) -> tuple[str, list[str]]:
    rows: list[str] = []
    losses: list[str] = []
    for work in WORKS:
        lines, lost = [], []
        for comparison in work.comparisons:
            found = dict(_times_as_fast(results, work, comparison))
            if not found:
                continue
            cells = [_times(found[size]) if size in found else "" for size in SIZES]
            lines.append(f"| {comparison.name} | {' | '.join(cells)} |")
            sizes = [size_name(size) for size in SIZES if found.get(size, 1) < CLEARLY]
            if sizes:
                lost.append(f"{comparison.name} at {' and '.join(sizes)}")
        if lines:
            rows += [f"| **{work.title}** |" + " |" * len(SIZES), *lines]
        if lost:
            losses.append(f"{work.name} ({'; '.join(lost)})")
    head = "| | " + " | ".join(map(size_name, SIZES)) + " |\n|---|" + "---:|" * len(SIZES)
    return "\n".join([head, *rows]), losses


def _times_as_fast(
    results: Results, work: Work, comparison: Comparison
) -> Iterator[tuple[int, float]]:
    for result in results.find(work.question, **work.axes):
        size = result.axes.get("size")
        if size not in SIZES or not result.label.startswith(work.verb):
            continue
        ours = [name for name in comparison.ours if name in result.samples]
        theirs = first_of(result, comparison.contender)
        if ours and theirs:
            yield size, result.ratio(theirs, min(ours, key=result.median))


def _times(value: float) -> str:
    if value >= 10:
        return f"{value:.0f}{TIMES}"
    return f"{value:.1f}{TIMES}" if value >= 1.95 else f"{value:.2f}{TIMES}"


def _servers(results: Results) -> Iterator[str]:
    """Yield a sentence and the table of the echo servers' rates, if they were measured."""
    loads = [result for result in results.find("server") if "figure" not in result.axes]
    if not loads:
        return
    yield _filled(
        "Replies a second of echo servers on one core, by the connections and the messages that "
        "each has on the way (the clients are a program in C on another core, which compares every "
        "reply):"
    )
    first = loads[0]
    heads = [
        f"{load.axes['connections']} {TIMES} {load.axes['in_flight']}, "
        f"{size_name(load.axes['size'])}"
        for load in loads
    ]
    rows = [f"| | {' | '.join(heads)} |", "|---|" + "---:|" * len(loads)]
    for name in sorted(first.samples, key=first.median):
        cells = [_rate(load.median(name)) if name in load.samples else "" for load in loads]
        shown = f"**{name}**" if first.roles.get(name) == "ours" else name
        rows.append(f"| {shown} | {' | '.join(cells)} |")
    yield "\n".join(rows)


def _rate(nanoseconds: float) -> str:
    """Return how many a second that is, with three significant digits."""
    rate = 1e9 / nanoseconds
    step = 10 ** max(len(str(int(rate))) - 3, 0)
    return f"{round(rate / step) * step:,}"


def _memory(results: Results) -> str:
    for result in results.find("asyncio", what="connection"):
        if {"FrameStream", "asyncio streams"} <= set(result.samples):
            ours, theirs = result.median("FrameStream"), result.median("asyncio streams")
            if ours > theirs:
                return (
                    f" An idle `FrameStream` takes {ours / 1000:.1f} kB of memory, one of "
                    f"asyncio's streams {theirs / 1000:.1f} kB."
                )
    return ""
