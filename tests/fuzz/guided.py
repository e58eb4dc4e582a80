"""Programs of `tests.fuzz.orders` that a coverage-guided fuzzer writes (atheris, libFuzzer).

    python -m tests.fuzz.guided --minutes 10       search; keep what reaches new code
    python -m tests.fuzz.guided FILE...            run inputs again: each program, and what is wrong
    python -m tests.fuzz.guided --keep FOLDER      add what reaches new branches to the seeds

An input is a string of bytes in the place of random numbers: a codec is drawn from its first
`CODEC_BYTES`, and the stream, the cuts, the order of calls and the tricks of parsers from the rest.
The program runs on both engines and the reference step by step, as in every campaign of orders.
What the Python engine executes guides the search: its branches are those of the compiled engine,
which is compared with it.

The inputs that reached something new are kept in `guided_seeds.txt`, one a line in hexadecimal. The
suite runs them, and a search begins with them. Needs atheris, but not to run inputs again.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from tests.fuzz import orders

__all__ = ["BytesRandom", "draw", "fuzz", "keep", "read_seeds", "run_input"]

SEEDS = Path(__file__).with_name("guided_seeds.txt")
CODEC_BYTES = 48
LARGEST_INPUT = 512


class BytesRandom(random.Random):
    """Random numbers that are read from bytes; after their end, from a generator.

    The generator is seeded with the bytes, so an input is always the same program. Without it, a
    draw that is repeated until it fits would be repeated for ever.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._pos = data, 0
        super().__init__(data)

    def getrandbits(self, k: int, /) -> int:
        """Return a number of `k` bits."""
        size = (k + 7) // 8
        taken = self._data[self._pos : self._pos + size]
        if len(taken) < size:
            self._pos = len(self._data)
            return super().getrandbits(k)
        self._pos += size
        return int.from_bytes(taken, "little") >> (size * 8 - k)

    def random(self) -> float:
        """Return a number from 0 to less than 1, from 2 bytes."""
        taken = self._data[self._pos : self._pos + 2]
        if len(taken) < 2:
            self._pos = len(self._data)
            return super().random()
        self._pos += 2
        return int.from_bytes(taken, "little") / 65536


@functools.lru_cache(maxsize=64)
def _stock_of(data: bytes) -> orders.Stock:
    # Making it takes longer than a program: inputs that differ in their rest share it.
    rng = BytesRandom(data)
    return orders.draw_stock(rng, rng.getrandbits(16))


def draw(data: bytes) -> tuple[orders.Program, orders.Stock]:
    """Return the program that an input means, and what it is made from."""
    stock = _stock_of(data[:CODEC_BYTES])
    return orders.draw_program_of(stock, BytesRandom(data[CODEC_BYTES:])), stock


def run_input(data: bytes, engines: list[ModuleType]) -> None:
    """Run the program of an input; raise an error that shows it where something is wrong."""
    program, stock = draw(data)
    try:
        orders.run_of(program, stock, engines)
    except Exception as error:
        error.add_note(f"the input {data.hex()} is:\n{program}")
        raise


def read_seeds() -> Iterator[bytes]:
    """Yield the inputs that are kept."""
    for line in SEEDS.read_text("ascii").splitlines():
        yield bytes.fromhex(line)


def main(arguments: list[str]) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.guided", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer's own choices; 0: time")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps what reaches new code")
    parser.add_argument("--keep", type=Path, help="add inputs of this folder to the seeds")
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE", help="inputs to run again")
    options = parser.parse_args(arguments)
    if options.files:
        engines = orders.load_engines()
        return max([run_file(path, engines) for path in options.files])
    if options.keep:
        return keep(options.keep)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or Path(scratch, "corpus")
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(read_seeds()):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        search(corpus, options)
    return 0


def run_file(path: Path, engines: list[ModuleType]) -> int:
    """Print the program of an input, and what is wrong with it; return 1 if something is."""
    data = path.read_bytes()
    print(draw(data)[0])
    try:
        run_input(data, engines)
    except Exception as error:
        print(f"# {type(error).__name__}: {error}")
        return 1
    print("# passed")
    return 0


def search(corpus: Path, options: argparse.Namespace) -> None:
    """Search for some minutes from the seeds and a folder; end the process."""
    fuzz(
        [
            sys.argv[0],
            f"-max_total_time={max(1, round(options.minutes * 60))}",
            f"-max_len={LARGEST_INPUT}",
            f"-seed={options.seed}",
            "-timeout=60",  # seconds for one input
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
            str(corpus),
        ]
    )


def fuzz(command: list[str]) -> None:
    """Run libFuzzer with its own options; it ends the process.

    Args:
        command: The program's name, options of libFuzzer, and folders of inputs.
    """
    import atheris

    with atheris.instrument_imports(include=["framecodec"]):  # the Python engine is loaded now
        engines = orders.load_engines()
    atheris.Setup(command, lambda data: run_input(data, engines))
    atheris.Fuzz()


# --- seeds ----------------------------------------------------------------------------------------


def keep(folder: Path) -> int:
    """Write the seeds: of the old ones and a folder's inputs, those that reach something new."""
    inputs = {*read_seeds(), *(path.read_bytes() for path in folder.iterdir())}
    engines = orders.load_engines(["python"])
    reached: set[tuple[str, int, int]] = set()
    kept = []
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        found = branches_of(data, engines)
        if not found <= reached:
            reached |= found
            kept.append(data)
    SEEDS.write_text("".join(f"{data.hex()}\n" for data in kept), "ascii")
    print(f"{len(kept)} of {len(inputs)} inputs are the seeds; they reach {len(reached)} branches")
    return 0


def branches_of(data: bytes, engines: list[ModuleType]) -> set[tuple[str, int, int]]:
    """Return the pairs of lines of the Python engine that follow each other in a run."""
    found = set()

    def trace_call(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.endswith("_py.py"):
            return None
        last = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal last
            if event == "line":
                found.add((frame.f_code.co_filename, last, frame.f_lineno))
                last = frame.f_lineno
            return trace

        return trace

    before = sys.gettrace()
    sys.settrace(trace_call)
    try:
        run_input(data, engines)
    finally:
        sys.settrace(before)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
