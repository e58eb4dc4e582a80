"""Report what the tests of the session `coverage` ran, and fail where it is less than it was.

Run it where the modules were built with line tracing: Cython's plugin reads the C files.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import Cython.Coverage
from coverage import Coverage, CoverageData
from coverage.exceptions import CoverageException

# Percent of the lines of the compiled modules; a few of them run only if threads or signals meet.
# `fail_under` in pyproject.toml is that of the lines and branches of the Python code.
COMPILED = 99.9

find_reporter = Cython.Coverage.Plugin.file_reporter


def untraced_lines(source: list[str]) -> Iterator[int]:
    """Yield the numbers of lines that Cython often does not trace, but whose neighbours it does.

    They are the first lines of C functions, their decorators, and the first line after `finally:`,
    which runs whenever the lines of its `try` do, and is not traced after a `return`.
    """
    for number, line in enumerate(source, 1):
        if re.match(r"\s*(cdef inline\b|@)", line):
            yield number
        elif line.strip() == "finally:":
            yield number + 1


def file_reporter(plugin: Cython.Coverage.Plugin, name: str) -> object:
    """Return what reports a file, also of a .pxd, for which the plugin finds no C file."""
    if not plugin._c_files_map:
        for c_file in sorted(Path("src").rglob("*.c")):
            plugin._read_source_lines(str(c_file.resolve()), name)
    reporter = find_reporter(plugin, name)
    if isinstance(reporter, Cython.Coverage.CythonModuleReporter):
        for number in untraced_lines(Path(name).read_text(encoding="utf-8").splitlines()):
            reporter._code.pop(number, None)
    return reporter


def complete(file: Path) -> bool:
    """Return whether a process had written all of its data when it was ended."""
    data = CoverageData(file)
    try:
        data.read()
    except CoverageException:
        return False
    names = data.measured_files()
    return all(data.file_tracer(name) for name in names if name.endswith((".pyx", ".pxd")))


def main() -> int:
    """Print both reports; return the exit code."""
    Cython.Coverage.Plugin.file_reporter = file_reporter
    coverage = Coverage()
    found = Path(str(coverage.get_option("run:data_file"))).resolve()
    coverage.combine([str(file) for file in found.parent.glob(f"{found.name}.*") if complete(file)])
    failed = 0
    for kind, files, least in (
        ("Python", ["src/**/*.py"], float(coverage.get_option("report:fail_under"))),
        ("compiled", ["src/**/*.pyx", "src/**/*.pxd"], COMPILED),
    ):
        print(f"\n--- {kind}: at least {least} percent\n", flush=True)
        total = coverage.report(include=files)
        failed |= total < least
        print(f"{total:.2f} percent" + (": too little" if total < least else ""))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
