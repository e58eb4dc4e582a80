"""Check what a folder of distributions holds: the source, platform wheels and a pure wheel.

What is packed is seen by no test that runs from a checkout: a missing `py.typed`, a `.c` file in
the source distribution, a wheel with a platform's tag and no compiled engine in it.
"""

import sys
import tarfile
import zipfile
from pathlib import Path

COMPILED_ENDINGS = (".so", ".pyd")


def problems_of_a_wheel(path: Path) -> list[str]:
    """Name what is wrong with one wheel."""
    names = zipfile.ZipFile(path).namelist()
    compiled = [name for name in names if name.endswith(COMPILED_ENDINGS)]
    pure = path.name.endswith("-py3-none-any.whl")
    problems = [
        f"{name} does not belong into a wheel"
        for name in names
        if name.endswith((".pyx", ".pxd", ".c"))
    ]
    problems += [
        f"{wanted} is missing"
        for wanted in (
            "framecodec/__init__.py",
            "framecodec/py.typed",
            "framecodec/_encoder.pyi",
            "framecodec/_splitter.pyi",
            "framecodec/sockets/_fast_path.pyi",
            "framecodec/testing/__init__.py",
            "pytest_framecodec.py",
            "framecodec/asyncio/_fast_path.pyi",
            "framecodec/serving/_messages_loop.pyi",
        )
        if wanted not in names
    ]
    problems += [
        f"{name} is not part of the package"
        for name in names
        if not name.startswith(("framecodec/", "framecodec-")) and name != "pytest_framecodec.py"
    ]
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        problems.append("the licence is missing")
    # The loop of serve_messages() is compiled for Linux only.
    if len(compiled) != (0 if pure else 5 if "linux" in path.name else 4):
        problems.append(f"{len(compiled)} compiled modules in a wheel of this name")
    return problems


def problems_of_a_source_distribution(path: Path) -> list[str]:
    """Name what is wrong with one source distribution."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    problems = [
        f"{wanted} is missing"
        for wanted in (
            "LICENSE",
            "README.md",
            "CHANGELOG.md",
            "pyproject.toml",
            "setup.py",
            ".ci/run",
            "noxfile.py",
            "src/framecodec/_numbers.pxd",
            "src/framecodec/_encoder.pyx",
            "src/framecodec/_encoder.pyi",
            "src/framecodec/_splitter.pyx",
            "src/framecodec/_splitter.pyi",
            "src/framecodec/sockets/_fast_path.pyx",
            "src/framecodec/sockets/_fast_path.pyi",
            "src/framecodec/asyncio/_fast_path.pyx",
            "src/framecodec/asyncio/_fast_path.pyi",
            "src/framecodec/serving/_messages_loop.pyx",
            "src/framecodec/serving/_messages_loop.pyi",
            "src/framecodec/py.typed",
            "tests/conftest.py",
        )
        if wanted not in names
    ]
    problems += [
        f"{name} is generated and does not belong here"
        for name in sorted(names)
        if (name.startswith("src/") and name.endswith(".c"))
        or name.endswith((*COMPILED_ENDINGS, ".pyc"))
    ]
    return problems


def main(folder: Path) -> int:
    """Check the distributions in the folder; return the exit code."""
    wheels = sorted(folder.glob("*.whl"))
    sources = sorted(folder.glob("*.tar.gz"))
    pure_count = sum(path.name.endswith("-py3-none-any.whl") for path in wheels)
    found = (len(sources), pure_count, len(wheels) - pure_count)
    if found[:2] != (1, 1) or found[2] < 1:
        print(f"expected a source distribution, a pure wheel and platform wheels; found {found}")
        return 1
    bad = False
    for path in (*sources, *wheels):
        check = problems_of_a_wheel if path in wheels else problems_of_a_source_distribution
        problems = check(path)
        bad = bad or bool(problems)
        size = f"{round(path.stat().st_size / 1024)} KiB"
        print(f"{path.name} ({size}):", "; ".join(problems) or "as it should be")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
