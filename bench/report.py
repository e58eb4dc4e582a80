"""Run the benchmarks and write a report: tables, pictures, and the aims with what was reached.

    python -m bench.report --quick              a few minutes
    python -m bench.report                      the figures to quote; let the machine be idle
    python -m bench.report --only split encode
    python -m bench.report --redraw             write the report again from results.json
    python -m bench.report --readme             and put the main figures into the README

The report is `bench/results/report.md`, with the pictures and `results.json` beside it.
"""

from __future__ import annotations

import argparse
import random
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import (
    aims,
    bench_asyncio,
    bench_encode,
    bench_roundtrip,
    bench_send,
    bench_server,
    bench_split,
    bench_stream,
    harness,
    native,
    readme,
)
from .harness import FULL, QUICK, Result, Results
from .sources import size_name

HERE = Path(__file__).parent
QUESTIONS = {
    "split": bench_split,
    "encode": bench_encode,
    "stream": bench_stream,
    "roundtrip": bench_roundtrip,
    "send": bench_send,
    "asyncio": bench_asyncio,
    "server": bench_server,
}
TITLES = {
    "split": "Splitting in memory",
    "shapes": "Splitting other shapes (the floor is the plain 4-byte shape)",
    "encode": "Encoding",
    "stream": "Receiving over a socket",
    "roundtrip": "Round trips, both ends on one core",
    "send": "Sending over a socket",
    "asyncio": "Inside an event loop",
    "server": "Echo servers under load, one core each",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller sources")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, help="these questions")
    parser.add_argument("--rounds", type=int, help="rounds of every case")
    parser.add_argument("--seed", type=int, default=1, help="of the order of contenders")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="the folder")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    parser.add_argument("--readme", action="store_true", help="write the README's figures, too")
    options = parser.parse_args(arguments)

    options.out.mkdir(parents=True, exist_ok=True)
    saved = options.out / "results.json"
    if options.redraw:
        results, facts = harness.load(saved)
    else:
        facts = harness.machine()
        given = sys.argv[1:] if arguments is None else arguments
        facts["command"] = shlex.join(["python", "-m", "bench.report", *given])
        facts["when"] = time.strftime("%Y-%m-%d %H:%M")
        results = list(_measure(options))
        facts |= native.versions()
        # Keep the earlier results of the questions that this run did not ask.
        if options.only and saved.exists():
            asked = {result.question for result in results}
            older, _ = harness.load(saved)
            results = [r for r in older if r.question not in asked] + results
        harness.save(saved, results, facts)
    pictures = list(_draw(results, options.out))
    report = options.out / "report.md"
    report.write_text(_report(results, facts, pictures))
    if options.readme:
        readme.write(Results(results), facts, pictures)
    print(f"\n{aims.table(results)}\n\nThe report: {report}")
    return 0


def _measure(options: argparse.Namespace) -> Iterator[Result]:
    import dataclasses

    scale = QUICK if options.quick else FULL
    if options.rounds:
        scale = dataclasses.replace(scale, rounds=options.rounds)
    rng = random.Random(options.seed)
    for question in options.only or QUESTIONS:
        for case in QUESTIONS[question].cases(scale):
            began = time.monotonic()
            result = harness.measure(case, scale, rng)
            print(f"\n{result.table()}\n({time.monotonic() - began:.0f} s)", flush=True)
            yield result


# --- the report -----------------------------------------------------------------------------------


def _report(results: list[Result], facts: dict[str, str], pictures: list[Path]) -> str:
    parts = [
        "# How fast is framecodec?",
        _facts(facts),
        "## Aims",
        aims.table(results),
    ]
    parts.append(
        "Times of one run, ratios round by round. *must* and *aim* are upper bounds of a time's "
        f"ratio, or lower bounds of how many times as fast ({aims.TIMES})."
    )
    for picture in pictures:
        parts.append(f"![{picture.stem.replace('-', ' ')}]({picture.name})")
    skipped: dict[str, str] = {}
    for question, title in TITLES.items():
        tables = [r.table() for r in results if r.question == question and r.samples]
        if tables:
            parts += [f"## {title}", *tables]
    for result in results:
        skipped |= result.skipped
    if skipped:
        parts.append("## Not measured")
        parts.append("\n".join(f"- {name}: {reason}" for name, reason in sorted(skipped.items())))
    return "\n\n".join(parts) + "\n"


def _facts(facts: dict[str, str]) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"| | |\n|---|---|\n{rows}"


# --- pictures -------------------------------------------------------------------------------------

# One colour a contender, in every picture. Ours is the boldest, the floor is black and dashed.
STYLES: dict[str, dict[str, Any]] = {
    "framecodec": {"color": "#d62728", "linewidth": 3, "zorder": 5},
    "framecodec, for m in conn": {"color": "#d62728", "linewidth": 3, "zorder": 5},
    "FrameStream, recv_many": {"color": "#ff7f0e", "linewidth": 2.5, "zorder": 5},
    "framecodec, Python engine": {"color": "#d62728", "linewidth": 1.5, "linestyle": ":"},
    "C floor": {"color": "black", "linewidth": 1.5, "linestyle": "--", "zorder": 6},
    "raw socket": {"color": "black", "linewidth": 1.2, "linestyle": ":"},
    "msgpack Unpacker": {"color": "#1f77b4"},
    "tuned Python": {"color": "#2ca02c"},
    "Twisted Int32StringReceiver": {"color": "#9467bd"},
    "websockets": {"color": "#7f7f7f"},
    "picows": {"color": "#17becf"},
    "pyzmq PULL": {"color": "#bcbd22"},
    "makefile().read": {"color": "#8c564b"},
    "asyncio streams": {"color": "#e377c2"},
    "uvloop streams": {"color": "#f7b6d2"},
    "recv header, recv body": {"color": "#aec7e8"},
    "multiprocessing.connection": {"color": "#98df8a"},
    "tokio-util, Vec": {"color": "#b15928", "linestyle": "-."},
    "Netty, byte[]": {"color": "#6a3d9a", "linestyle": "-."},
    "tokio-util, new buffer": {"color": "#b15928", "linestyle": "-."},
}
PICTURES = (
    ("split", {"chunk": "64 KiB, hot"}, "Splitting in memory, 64 KiB of whole frames at a time"),
    ("encode", {"how": "a batch of 64 KiB"}, "Encoding batches of 64 KiB"),
    ("stream", {"family": "TCP"}, "Receiving over TCP on loopback, looping over every message"),
    ("stream", {"family": "Unix"}, "Receiving over a Unix socket, looping over every message"),
)


SERVER_OF_REFERENCE = "tokio-util"
SERVERS = (
    "C by hand",
    "serve_messages",
    "tokio-util",
    "FrameProtocol, uvloop",
    "FrameStream, uvloop",
    "FrameSocket, selectors",
    "serve",
    "Protocol by hand, uvloop",
    "uvloop streams",
    "asyncio streams",
)


def _draw(results: list[Result], folder: Path) -> Iterator[Path]:
    """Draw throughput over message size, both logarithmic, one line a contender."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no pictures")
        return
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "framecodec"
    import matplotlib.pyplot as plt

    yield from _draw_servers(results, plt, folder)
    found = Results(results)
    for question, axes, title in PICTURES:
        cases = sorted(found.find(question, **axes), key=lambda result: result.axes["size"])
        if len(cases) < 2:
            continue
        figure, plot = plt.subplots(figsize=(10, 6.2), layout="constrained")
        ends: list[tuple[float, str, str]] = []
        for name, style in STYLES.items():
            at = [case for case in cases if name in case.samples]
            if len(at) < 2:
                continue
            sizes = [case.axes["size"] for case in at]
            rates = [1e9 / case.median(name) for case in at]
            quartiles = [
                statistics.quantiles(case.samples[name], n=4, method="inclusive") for case in at
            ]
            (line,) = plot.plot(sizes, rates, marker="o", markersize=3.5, **style)
            low, high = ([1e9 / q[i] for q in quartiles] for i in (2, 0))
            plot.fill_between(sizes, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
            ends.append((rates[0], name, line.get_color()))
        plot.set_xscale("log", base=2)
        plot.set_yscale("log")
        ticks = [case.axes["size"] for case in cases]
        plot.set_xticks(ticks, [size_name(size) for size in ticks])
        plot.set_xlabel("message size")
        plot.set_ylabel("messages a second")
        plot.set_title(title, loc="left", fontweight="bold")
        plot.grid(True, which="major", alpha=0.3)
        for side in ("top", "right"):
            plot.spines[side].set_visible(False)
        _name_lines(plot, ends, ticks[0])
        name = "-".join([question, *(str(v) for v in axes.values())])
        name = name.replace(",", "").replace(" ", "-").lower()
        for suffix in ("svg", "png"):
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(folder / f"{name}.{suffix}", dpi=150, metadata=metadata)
        plt.close(figure)
        yield folder / f"{name}.svg"


def _draw_servers(results: list[Result], plt: Any, folder: Path) -> Iterator[Path]:
    """Draw the rates of the servers as bars, one group a load, in multiples of tokio-util's."""
    loads = [
        result
        for result in Results(results).find("server")
        if "figure" not in result.axes and SERVER_OF_REFERENCE in result.samples
    ]
    if not loads:
        return
    figure, plots = plt.subplots(
        1, len(loads), figsize=(3.2 * len(loads), 5.4), layout="constrained", sharey=True
    )
    plots = list(plots) if len(loads) > 1 else [plots]
    names = [name for name in SERVERS if any(name in load.samples for load in loads)]
    for plot, load in zip(plots, loads, strict=True):
        ratios = [
            load.ratio(SERVER_OF_REFERENCE, name) if name in load.samples else 0.0 for name in names
        ]
        colours = ["#d62728" if load.roles.get(name) == "ours" else "#7f7f7f" for name in names]
        bars = plot.barh(names, ratios, color=colours)
        plot.bar_label(bars, [f"{ratio:.2f}" if ratio else "" for ratio in ratios], padding=2)
        plot.axvline(1, color="black", linewidth=0.8)
        plot.set_title(load.label.removeprefix("echo ").replace(", ", "\n"), fontsize=10)
        plot.margins(x=0.18)
        for side in ("top", "right"):
            plot.spines[side].set_visible(False)
    plots[0].invert_yaxis()
    figure.suptitle(f"Replies a second of echo servers, as multiples of {SERVER_OF_REFERENCE}'s")
    for suffix in ("svg", "png"):
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(folder / f"servers.{suffix}", dpi=150, metadata=metadata)
    plt.close(figure)
    yield folder / "servers.svg"


def _name_lines(plot: Any, ends: list[tuple[float, str, str]], first: int) -> None:
    """Write the names at the left ends of the lines, pushed apart where they would overlap."""
    import math

    low, high = (math.log10(limit) for limit in plot.get_ylim())
    gap = (high - low) / 30
    ends.sort()
    heights: list[float] = []
    for rate, _, _ in ends:
        height = math.log10(rate)
        heights.append(max(height, heights[-1] + gap) if heights else height)
    # Move the names that were pushed above the top down again.
    top = high
    for index in range(len(heights) - 1, -1, -1):
        heights[index] = min(heights[index], top)
        top = heights[index] - gap
    for (rate, name, colour), height in zip(ends, heights, strict=True):
        plot.annotate(
            f"{name} ",
            xy=(first, rate),
            xytext=(first / 1.6, 10**height),
            ha="right",
            va="center",
            fontsize=8.5,
            color=colour,
            fontweight="bold" if name.startswith(("framecodec", "Frame")) else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.5,
                "alpha": 0.6,
                "relpos": (1, 0.5),  # from the end of the name
            },
            annotation_clip=False,
        )
    plot.yaxis.tick_right()
    plot.yaxis.set_label_position("right")
    plot.spines["left"].set_visible(False)
    plot.spines["right"].set_visible(True)


if __name__ == "__main__":
    sys.exit(main())
