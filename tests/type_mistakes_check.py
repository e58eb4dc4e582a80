"""Check that mypy and pyright report the marked lines of `type_mistakes.py`, and no others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).with_name("type_mistakes.py")


def found_by_mypy() -> set[int]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(FILE)]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    return {int(line) for line in re.findall(r"type_mistakes\.py:(\d+): error", output)}


def found_by_pyright() -> set[int]:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    output = subprocess.run([*command, str(FILE)], capture_output=True, text=True).stdout
    return {
        report["range"]["start"]["line"] + 1
        for report in json.loads(output)["generalDiagnostics"]
        if report["severity"] == "error"
    }


def main() -> int:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# mistake")}
    failed = 0
    for name, find in (("mypy", found_by_mypy), ("pyright", found_by_pyright)):
        found = find()
        for number in sorted(expected - found):
            print(f"{name} accepts line {number}: {lines[number - 1]}")
        for number in sorted(found - expected):
            print(f"{name} refuses line {number}: {lines[number - 1]}")
        failed |= found != expected
    return failed


if __name__ == "__main__":
    sys.exit(main())
