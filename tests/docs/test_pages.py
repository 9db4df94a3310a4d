"""Pages are true: their paths and commands exist, and their Python runs and gives the results in its comments."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from nas.cli import main
from nas.study import load_study

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "studies").glob("**/README.md"))
IN_CHECKOUT = ("space/", "pruning/", "nas/", "tests/", "studies/", "docs/", "examples/", ".ci/")
PLACEHOLDERS = ("NAME", "a_b")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)


def paths_named(page: Path) -> set[str]:
    """Files and folders of the checkout that a page names in words, not in links."""
    named = re.findall(r"`([\w./-]+)`", page.read_text("utf-8"))
    return {each for each in named if each.startswith(IN_CHECKOUT) and not any(part in each for part in PLACEHOLDERS)}


def commands(page: Path) -> list[list[str]]:
    """`nas` commands in the page's shell blocks and tables, as words."""
    lines = [line.partition("  #")[0] for block in blocks(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"^\| `(nas [^`]+)`", page.read_text("utf-8"), re.M)
    lines += re.findall(r"(?<![\w/])`(nas [a-z]+ [^`]*)`", page.read_text("utf-8"))
    return [shlex.split(line.replace("[", "").replace("]", "")) for line in lines if line.startswith("nas ")]


@cache
def help_of(command: str) -> str:
    """The output of `nas COMMAND --help`."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0, f"there is no command {command}"
    return out.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_existing_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_files_named_in_pages_exist(page: Path) -> None:
    assert [path for path in sorted(paths_named(page)) if not (ROOT / path).exists()] == []


def test_pages_name_at_least_thirty_files() -> None:
    assert sum(len(paths_named(page)) for page in PAGES) > 30


@pytest.mark.share(3)
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_pages_use_existing_options(page: Path) -> None:
    for _, command, *words in commands(page):
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option in help_of(command), f"nas {command} has no {option}"


def test_pages_show_commands() -> None:
    assert len({words[1] for page in PAGES for words in commands(page)}) >= 10


@pytest.mark.share(3)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_in_pages_runs_and_gives_the_results_in_its_comments(page: Path) -> None:
    for block in blocks(page, "python"):
        lines, expected, program = block.splitlines(), [], []
        for statement in ast.parse(block).body:
            source = ast.get_source_segment(block, statement) or ""
            comment = lines[statement.lineno - 1].partition("  # ")[2]
            program.append(source)
            if isinstance(statement, ast.Expr) and re.fullmatch(r"[\d,.]+|.* ms .*", comment):
                expected.append(comment)
                program[-1] = source if source.startswith("print(") else f"print({source})"
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(program)], capture_output=True, text=True, cwd=ROOT, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert expected
        assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "search.md"], ids=name)
def test_studies_in_pages_can_be_read(page: Path, tmp_path: Path) -> None:
    studies = [block for block in blocks(page, "yaml") if "budget" in (yaml.safe_load(block) or {})]
    assert studies
    for text in studies:
        (tmp_path / "study.yaml").write_text(text)
        assert load_study(tmp_path / "study.yaml").budget == "10ms"


def test_the_readme_is_short_and_contributing_has_its_test_command() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) < 120
    command = next(line for line in readme.splitlines() if line.startswith("python3 -m venv") and "pytest" in line)
    assert command in (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def test_contributing_has_steps_for_every_folder_with_kinds() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    suites = {path.name for path in (ROOT / "tests" / "contracts").glob("test_*.py")} - {"test_other_packages.py"}
    assert suites == set(re.findall(r"tests/contracts/(test_\w+\.py)", text))
