"""What is published: metadata that is true, and workflows that agree with it."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import framecodec

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
CIBUILDWHEEL = PYPROJECT["tool"]["cibuildwheel"]
METADATA = importlib.metadata.metadata("framecodec")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHONS = [
    classifier.rpartition(" ")[2]
    for classifier in PROJECT["classifiers"]
    if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", classifier)
]


# --- the Pythons and systems that are named are those that are tested ----------------------------


def test_every_python_of_the_classifiers_is_tested_and_has_a_wheel() -> None:
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    noxfile = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    (tested,) = (
        ast.literal_eval(node.value)
        for node in noxfile.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PYTHONS"
    )
    assert tested == PYTHONS
    wheels = [f"cp{version.replace('.', '')}-*" for version in PYTHONS]
    without_gil = [wheel.replace("-", "t-") for wheel in wheels if wheel >= "cp314"]
    assert CIBUILDWHEEL["build"].split() == sorted([*wheels, *without_gil])
    assert "skip" not in CIBUILDWHEEL
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert f"python: {PYTHONS}".replace("'", '"') in workflow


def test_every_system_of_the_classifiers_is_one_that_the_workflows_run_on() -> None:
    systems = [text for text in PROJECT["classifiers"] if text.startswith("Operating System")]
    assert [system.rpartition(" :: ")[2] for system in systems] == ["MacOS", "Windows", "Linux"]
    runs_on = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    for runner in ("macos-15-intel", "macos-15 ", "windows-2025", "ubuntu-24.04-arm"):
        assert f"- {runner}" in runs_on
    assert "os: [ubuntu, macos, windows]" in runs_on


def test_the_suite_of_a_wheel_has_every_file_of_the_project() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    if not listed.stdout:
        pytest.skip("not in a checkout")
    (override,) = CIBUILDWHEEL["overrides"]
    assert {name.partition("/")[0] for name in listed.stdout.splitlines()} == {
        *override["test-sources"]
    }


# --- workflows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit_and_names_its_release(path: Path) -> None:
    used = re.findall(r"^ *(?:- )?uses: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_workflows_run_sessions_that_exist_and_those_without_the_gil() -> None:
    noxfile = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in noxfile.body if isinstance(node, ast.FunctionDef)]
    sessions = {
        function.name
        for function in functions
        for decorator in function.decorator_list
        if ast.unparse(decorator).startswith("nox.session")
    }
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    named = set(re.findall(r'/?nox"? -s "?([a-z]\w*)', text))
    listed = re.search(r"\n        session:\n((?: {10}- .*\n)+)", text)
    assert listed is not None
    named |= set(re.findall(r"- (\w+)", listed[1]))
    assert len(named) > 12
    assert named <= sessions
    assert {"free_threaded", "sanitize_threads", "sanitize", "coverage"} <= named


def test_only_the_job_that_publishes_may_ask_for_a_token() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    before, publish = text.split("\n  publish:\n")
    assert "id-token: write" not in before
    assert "id-token: write" in publish
    assert "if: github.ref_type == 'tag'" in publish
    assert "secrets." not in text


# --- metadata -------------------------------------------------------------------------------------


def imported_packages() -> set[str]:
    """Return the packages that some module of framecodec imports."""
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_import":
                found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def test_every_extra_installs_what_the_package_imports() -> None:
    extras = PROJECT["optional-dependencies"]
    for extra in extras.keys() - {"test", "wheeltest"}:
        assert extras[extra], extra
        for requirement in extras[extra]:
            name = re.match(r"[\w-]+", requirement)
            assert name is not None
            assert name[0].replace("-", "_") in imported_packages(), requirement


def test_the_smoke_tests_need_only_what_their_extra_installs() -> None:
    assert [wanted.split()[0] for wanted in PROJECT["optional-dependencies"]["wheeltest"]] == [
        "pytest"
    ]
    text = (ROOT / "tests" / "smoke" / "test_installed.py").read_text(encoding="utf-8")
    assert not re.search(
        r"^ *(from|import) (tests|hypothesis|numpy|trio|anyio)", text, re.MULTILINE
    )


def test_a_package_index_shows_the_readme_with_links_that_work_there() -> None:
    page = str(METADATA["Description"] or METADATA.get_payload())
    assert page.startswith("# framecodec")
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 10
    kinds = set()
    for link in links:
        if not link.startswith("#"):
            match = re.fullmatch(
                r"https://github\.com/framecodec/framecodec/(raw|blob)/v([\d.]+)/([\w./-]+)", link
            )
            assert match is not None, link
            assert match[2] == framecodec.__version__
            assert (ROOT / match[3]).exists(), link
            assert (match[1] == "raw") is match[3].endswith(".svg")
            kinds.add(match[1])
    assert kinds == {"raw", "blob"}
    assert "pip install framecodec && framecodec demo" in page
    assert "pip install . &&" not in page


def test_the_metadata_names_where_to_read_ask_and_report() -> None:
    assert PROJECT["urls"].keys() == {"Changelog", "Documentation", "Issues", "Security", "Source"}
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert f"{PROJECT['urls']['Source']}/security/advisories/new" in security


def test_the_version_has_its_section_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert first is not None
    assert first[1].strip("[]") == framecodec.__version__ == METADATA["Version"]
