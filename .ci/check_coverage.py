"""Report what the tests of the session `coverage` ran, and fail where it is less than it was.

Run it where the modules were built with line tracing: Cython's plugin reads the C files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import Cython.Coverage
from coverage import Coverage

# Percent of the lines of the compiled modules. `fail_under` in pyproject.toml is that of the lines
# and branches of the Python code.
COMPILED = 96.0

find_reporter = Cython.Coverage.Plugin.file_reporter


def file_reporter(plugin: Cython.Coverage.Plugin, name: str) -> object:
    """Return what reports a file, also of a .pxd, for which the plugin finds no C file."""
    if not plugin._c_files_map:
        for c_file in sorted(Path("src").rglob("*.c")):
            plugin._read_source_lines(str(c_file.resolve()), name)
    return find_reporter(plugin, name)


def main() -> int:
    """Print both reports; return the exit code."""
    Cython.Coverage.Plugin.file_reporter = file_reporter
    coverage = Coverage()
    coverage.combine(keep=True)
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
