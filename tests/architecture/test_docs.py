"""Documents must not drift: what they name exists, what they show compiles, where they point is something."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from vram_residency.cli.main import cli
from vram_residency.core import errors

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def vram_lines(text: str) -> list[str]:
    """The commands ``vram …`` that a page shows, in blocks of shell and between backticks."""
    blocks = [body for language, body in _FENCE.findall(text) if language in {"sh", "console", ""}]
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    lines += _INLINE.findall(_FENCE.sub("", text))
    return [line.split("#")[0].strip() for line in lines if line.startswith("vram ")]


def wrong_words(line: str) -> list[str]:
    """The commands and options of a line that the program does not have."""
    command: click.Command = cli
    context = click.Context(cli, info_name="vram")
    wrong = []
    words = iter(line.split()[1:])
    for word in (each.strip("[]") for each in words):
        if word.startswith("--"):
            found = {name: each for each in command.get_params(context) for name in each.opts}
            option = found.get(word.split("=")[0])
            wrong += [word] * (option is None)
            if isinstance(option, click.Option) and not option.is_flag and "=" not in word:
                next(words, None)  # its value
        elif isinstance(command, click.Group):
            inner = command.get_command(context, word)
            if inner is None:
                return [*wrong, word]
            command = inner
    return wrong


@every_page
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    """Commands and options are looked up in the program itself."""
    wrong = {line: wrong_words(line) for line in vram_lines(page.read_text("utf-8"))}
    assert {line: words for line, words in wrong.items() if words} == {}


def test_every_command_and_page_that_a_hint_names_exists() -> None:
    """An error must not send its reader to a command that is not there."""
    hints = [value.default_hint for value in vars(errors).values() if hasattr(value, "default_hint")]
    lines = [line for hint in hints for line in vram_lines(hint)]
    assert lines
    assert {line: wrong_words(line) for line in lines if wrong_words(line)} == {}
    named = {page for hint in hints for page in re.findall(r"docs/\S+\.md", hint)}
    assert [page for page in named if not (ROOT / page).exists()] == []


@every_page
def test_every_python_block_compiles(page: Path) -> None:
    """An example with a slip of syntax is worse than none."""
    blocks = [body for language, body in _FENCE.findall(page.read_text("utf-8")) if language == "python"]
    for block in blocks:
        compile(block, str(page), "exec")


@every_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """Files are moved; links notice here."""
    targets = [link.partition("#")[0] for link in _LINK.findall(_FENCE.sub("", page.read_text("utf-8")))]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    """Every module stands in ARCHITECTURE.md with its floor, every event in events.md."""
    command = [sys.executable, ROOT / "docs" / "generate.py", "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"run `make docs`: {done.stdout}{done.stderr}"


def test_every_floor_is_drawn() -> None:
    """The drawing and the table show the rooms that import-linter enforces, top down."""
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", page, re.MULTILINE)
    assert [rooms.replace("`", "").replace(", ", " | ") for _, rooms in rows] == layers
    drawing = page.partition("```mermaid")[2].partition("```")[0]
    rooms = {room.strip() for layer in layers for room in layer.split("|")}
    assert {room for room in rooms if not re.search(rf"\b{room}\b", drawing)} == set()


def test_every_dependency_is_justified() -> None:
    """No line in pyproject.toml without a line in the decision about dependencies."""
    page = (ROOT / "docs" / "adr" / "0002-dependencies.md").read_text("utf-8")
    names = [re.split(r"[<>=\[; ]", entry)[0] for entry in PROJECT["project"]["dependencies"]]
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_every_decision_has_a_status_and_a_number_of_its_own() -> None:
    """0001 to the last, without gaps."""
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [path.name[:4] for path in decisions] == [
        f"{number:04}" for number in range(1, len(decisions) + 1)
    ]
    assert [path.name for path in decisions if "\nStatus: " not in path.read_text("utf-8")] == []


def test_every_format_page_is_in_the_index() -> None:
    """A reader who starts at the index finds all."""
    folder = ROOT / "docs" / "format"
    index = (folder / "README.md").read_text("utf-8")
    pages = {path.name for path in folder.glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"({name})" not in index} == set()


def test_the_readme_keeps_the_demo_between_its_markers() -> None:
    """The output is pasted there from a real run."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert re.search(r"<!-- demo: begin -->\n```text\n.+\n```\n<!-- demo: end -->", text, re.DOTALL)


def test_the_readme_names_the_two_commands_of_the_makefile() -> None:
    """And each target that a page names is one."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= targets


def test_no_page_names_a_path_of_some_machine() -> None:
    """Examples use paths that anybody may have."""
    pattern = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/")
    assert [page.name for page in PAGES if pattern.search(page.read_text("utf-8"))] == []
