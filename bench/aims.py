"""The table of aims: what framecodec must reach beside others, and a better figure to aim for.

`AIMS` is the table as data; `python -m bench.report` prints it with the figures of its run. To add
an aim, add a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .harness import Result, Results, first_of
from .sources import KIB, MIB, size_name

TIMES = "\N{MULTIPLICATION SIGN}"
BEST_ALTERNATIVE = "(the fastest alternative)"


@dataclass(frozen=True)
class Aim:
    """One row of the table.

    Attributes:
        work: What is done, for people.
        against: What framecodec is compared with, for people.
        must: The bound, or None if the row has none.
        aim: A better bound, or None.
        question: The benchmark, as in `python -m bench.report --only`.
        ours: Contenders of framecodec. The fastest of them counts, unless `each` is set. A name
            that ends in ``*`` means the fastest contender whose name begins so, here and in
            `theirs`.
        theirs: The other contender, or `BEST_ALTERNATIVE`. Without it the figure is the time in ns.
        axes: Which cases of the question, for example ``{"family": "TCP"}``.
        sizes: Only cases of these message sizes; all if empty.
        verb: Only cases whose label begins with this word.
        faster: The bounds say how many times as fast framecodec is at least. Otherwise they say how
            many times as long it takes at most.
        each: One figure for each name in `ours` instead of one for each size.
    """

    work: str
    against: str
    must: float | None
    aim: float | None
    question: str
    ours: tuple[str, ...]
    theirs: str | None = None
    axes: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    verb: str = ""
    faster: bool = False
    each: bool = False

    def figures(self, results: Results) -> dict[str, float]:
        """Return the run's figures by size, or by contender if `each` is set."""
        found: dict[str, float] = {}
        for result in results.find(self.question, **self.axes):
            size = result.axes.get("size")
            if (self.sizes and size not in self.sizes) or not result.label.startswith(self.verb):
                continue
            names = [name for name in (first_of(result, name) for name in self.ours) if name]
            if not self.each:
                names = sorted(names, key=result.median)[:1]
            for name in names:
                figure = self._figure(result, name)
                if figure is not None:
                    found[name if self.each else size_name(size)] = figure
        return found

    def _figure(self, result: Result, name: str) -> float | None:
        if self.theirs is None:
            return result.median(name)
        if self.theirs == BEST_ALTERNATIVE:
            other = result.best_alternative
        else:
            other = first_of(result, self.theirs)
        if other is None:
            return None
        return result.ratio(other, name) if self.faster else result.ratio(name, other)

    def verdict(self, values: Iterable[float]) -> str:
        """Judge the worst figure, in the digits that the table shows."""
        shown = [float(digits(value)) for value in values]
        if not shown:
            return ""
        worst = min(shown) if self.faster else max(shown)

        def reaches(bound: float) -> bool:
            return worst >= bound if self.faster else worst <= bound

        if self.aim is not None and reaches(self.aim):
            return "aim"
        if self.must is None:
            return "" if self.aim is None else "short of the aim"
        return "must" if reaches(self.must) else "**missed**"


OURS = ("framecodec",)
PYTHON = ("framecodec, Python engine",)
SOCKET = ("framecodec, for m in conn", "framecodec, recv_many")
TRIP = ("framecodec, recv",)
SEND = ("framecodec, send_many*",)
STREAM = ("FrameStream, recv_many", "FrameStream, async for", "FrameProtocol")

SMALL = (16, 64)
LARGE = (KIB, 64 * KIB, MIB)

HOT = {"chunk": "64 KiB, hot"}
BATCH = {"how": "a batch of 64 KiB"}
ONE_CALL = {"how": "one call a message"}
TCP = {"family": "TCP"}

# fmt: off
AIMS = [
    #   work, against, must, aim, question, ours, theirs, which cases
    Aim("split 16 to 64 B, hot", "C floor", 1.1, 0.95,
        "split", OURS, "C floor", HOT, SMALL),
    Aim("split 16 to 64 B, hot", "msgpack", 1.9, None,
        "split", OURS, "msgpack*", HOT, SMALL, faster=True),
    Aim("split 16 to 64 B, hot", "tokio-util, Vec", 2.2, None,
        "split", OURS, "tokio-util, Vec", HOT, SMALL, faster=True),
    Aim("split 16 to 64 B, hot", "tuned Python", 10, None,
        "split", OURS, "tuned Python", HOT, SMALL, faster=True),
    Aim("split 16 to 64 B, hot", "Twisted", 30, None,
        "split", OURS, "Twisted*", HOT, SMALL, faster=True),
    Aim("split 1 KiB to 1 MiB, hot", "C floor", 1.05, 1.0,
        "split", OURS, "C floor", HOT, LARGE),
    Aim("split, 1460 B chunks", "C floor", 1.1, 1.0,
        "split", OURS, "C floor", {"chunk": "1460 B"}),
    Aim("split, 7 B chunks", "C floor", 1.1, 1.0,
        "split", OURS, "C floor", {"chunk": "7 B"}),
    Aim("Python engine, 16 to 64 B, hot", "tuned Python", 1.0, None,
        "split", PYTHON, "tuned Python", HOT, SMALL),
    Aim("Python engine, 16 to 64 B, hot", "Twisted", 3, None,
        "split", PYTHON, "Twisted*", HOT, SMALL, faster=True),
    *(
        Aim(f"split, {shape}", "the plain shape", 2, 1.3,
            "shapes", (shape,), "plain", {"engine": "compiled"})
        for shape in ("offset", "adjustment", "trailer", "digits", "varint", "text")
    ),
    Aim("encode, batches", "C floor", 1.2, 1.05,
        "encode", OURS, "C floor", BATCH, (16, 64, KIB)),
    Aim("encode, batches, 16 to 64 B", "tokio-util, new buffer", 3.5, None,
        "encode", OURS, "tokio-util, new buffer", BATCH, SMALL, faster=True),
    # For the record: at 1 KiB the memory's speed decides.
    Aim("encode, batches, 1 KiB", "tokio-util, new buffer", None, None,
        "encode", OURS, "tokio-util, new buffer", BATCH, (KIB,), faster=True),
    Aim("encode, batches, 16 to 64 B", "tokio-util, reused buffer", 3.5, None,
        "encode", OURS, "tokio-util, reused buffer", BATCH, SMALL, faster=True),
    Aim("encode, batches, 1 KiB", "tokio-util, reused buffer", None, None,
        "encode", OURS, "tokio-util, reused buffer", BATCH, (KIB,), faster=True),
    Aim("encode, one call a message", "C floor", 1.2, 1.05,
        "encode", OURS, "C floor", ONE_CALL),
    Aim("stream over TCP, 16 to 64 B", "tuned Python", 4, None,
        "stream", SOCKET, "tuned Python", TCP, SMALL, faster=True),
    Aim("stream over TCP, 16 to 64 B", "makefile", 4.5, None,
        "stream", SOCKET, "makefile*", TCP, SMALL, faster=True),
    Aim("stream over TCP, 16 to 64 B", "picows", 4.5, None,
        "stream", SOCKET, "picows*", TCP, SMALL, faster=True),
    Aim("stream over TCP, 16 to 64 B", "pyzmq", 4.5, None,
        "stream", SOCKET, "pyzmq*", TCP, SMALL, faster=True),
    Aim("stream over TCP, 64 B", "ns a message", None, 40,
        "stream", SOCKET, None, TCP, (64,)),
    Aim("stream over TCP, 1 KiB", "raw recv_into", 1.2, 1.05,
        "stream", SOCKET, "raw socket", TCP, (KIB,)),
    Aim("stream over TCP, 64 KiB and 1 MiB", "raw recv_into", 1.05, 1.0,
        "stream", SOCKET, "raw socket", TCP, (64 * KIB, MIB)),
    Aim("stream over TCP, 16 MiB", "the best alternative", 0.95, 0.85,
        "stream", (*SOCKET, *TRIP), BEST_ALTERNATIVE, TCP, (16 * MIB,)),
    Aim("round trip, one core", "raw Python", 1.05, 0.98,
        "roundtrip", TRIP, "raw socket", {**TCP, "timeout": False}, (64,)),
    Aim("round trip with a time-out", "socket methods", 1.3, None,
        "roundtrip", TRIP, "raw socket", {**TCP, "timeout": True}, (64,), faster=True),
    Aim("send 64 B, batches", "one call a message", 50, None,
        "send", SEND, "framecodec, send", {}, (64,), faster=True),
    Aim("send 64 B, batches", "raw writes", None, 1.2,
        "send", SEND, "raw socket", {}, (64,)),
    Aim("asyncio: many sends in one turn, 64 B", "asyncio streams", 30, 60,
        "asyncio", ("FrameStream, send", "FrameProtocol"), "asyncio streams", TCP, (64,),
        verb="send", faster=True, each=True),
    Aim("asyncio: receive 64 B", "asyncio streams", 15, None,
        "asyncio", STREAM, "asyncio streams", TCP, (64,),
        verb="receive", faster=True, each=True),
    *(
        Aim(f"echo server: {ours}, {connections} x {in_flight} in flight", theirs, must, aim,
            "server", (ours,), theirs, {"connections": connections, "in_flight": in_flight},
            sizes, verb="echo", faster=True)
        for ours, theirs, connections, in_flight, sizes, must, aim in (
            ("serve_messages", "tokio-util", 50, 1, (64,), 1.1, 1.3),
            ("serve_messages", "tokio-util", 50, 16, (64,), 1.1, 1.3),
            ("serve_messages", "tokio-util", 10, 100, (64,), 1.1, 1.4),
            ("serve_messages", "tokio-util", 10, 4, (64 * KIB,), 0.95, 1.4),
            ("FrameProtocol, uvloop", "tokio-util", 50, 1, (64,), 0.85, 0.95),
            ("FrameProtocol, uvloop", "Protocol by hand, uvloop", 50, 1, (64,), 1.4, 1.5),
            ("FrameStream, uvloop", "uvloop streams", 50, 1, (64,), 1.35, 1.5),
            ("FrameStream, asyncio", "asyncio streams", 50, 1, (64,), 1.7, 2),
            ("FrameProtocol, uvloop", "tokio-util", 50, 16, (64,), 0.8, 1.0),
            ("FrameStream, uvloop", "tokio-util", 50, 16, (64,), 0.65, 0.8),
            ("serve", "asyncio streams", 50, 1, (64,), 3, 4),
            ("serve", "asyncio streams", 50, 16, (64,), 6, 10),
        )
    ),
]
# fmt: on


def table(results: list[Result]) -> str:
    """Return the table in Markdown: work, must, aim, and what this run reached."""
    lines = [
        "| work | against | must | aim | reached | |",
        "|---|---|---:|---:|---|---|",
    ]
    for row in AIMS:
        figures = row.figures(Results(results))
        mark = TIMES if row.faster else ""
        must = "" if row.must is None else f"{row.must:g}{mark}"
        aim = "" if row.aim is None else f"{row.aim:g}{mark}"
        reached = ", ".join(f"{name}: {digits(value)}{mark}" for name, value in figures.items())
        lines.append(
            f"| {row.work} | {row.against} | {must} | {aim} | {reached or 'not measured'} | "
            f"{row.verdict(figures.values())} |"
        )
    return "\n".join(lines)


def digits(value: float) -> str:
    """Return the figure as the table shows it."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
