"""What the README and the pages beside it say is what is there."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bract.errors import page
from bract_client.cli.main import app as site_app
from bract_server.cli.main import app as hub_app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"^( *)([\w./-]+/?)(?:  +.*)?$")


def tree() -> set[str]:
    """The paths that the README's tree names."""
    block = README.split("```tree\n")[1].split("```")[0]
    paths: set[str] = set()
    stack: list[tuple[int, str]] = []
    for line in block.splitlines():
        entry = ENTRY.match(line)
        assert entry, line
        depth, name = len(entry[1]), entry[2]
        while stack and stack[-1][0] >= depth:
            stack.pop()
        path = "".join(part for _, part in stack) + name
        paths.add(path.rstrip("/"))
        if name.endswith("/"):
            stack.append((depth, name))
    return paths


def test_everything_in_the_readmes_tree_exists() -> None:
    assert [path for path in sorted(tree()) if not (ROOT / path).exists()] == []


def test_every_package_folder_and_module_of_ours_stands_in_the_readmes_tree() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "shared", "client", "server"], cwd=ROOT, capture_output=True, check=True
    )
    folders = {
        str(Path(name).parent)
        for name in tracked.stdout.decode().split()
        if name.endswith(".py") and "/migrations" not in name
    }
    assert folders - tree() == set()


def test_the_top_level_holds_what_the_architecture_allows() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split()
    top = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    assert top == {"server", "client", "shared", "tests", "deploy", "pyproject.toml", "README.md", "LICENSE"}


def test_the_page_of_codes_is_the_table_of_codes() -> None:
    assert (ROOT / "deploy" / "codes.md").read_text(encoding="utf-8") == page()


@cache
def verbs(app: typer.Typer) -> frozenset[str]:
    """Every command line of an app, such as `campaign create`, by asking for help as a user would."""
    found: set[str] = set()
    waiting: list[list[str]] = [[]]
    while waiting:
        words = waiting.pop()
        told = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
        assert told.exit_code == 0, told.output
        listed = told.output.split("Commands:\n")[1:]
        for line in listed[0].splitlines() if listed else []:
            if match := re.match(r"^  (\S+)", line):
                waiting.append([*words, match[1]])
        if not listed:
            found.add(" ".join(words))
    return frozenset(found)


@pytest.mark.parametrize(("program", "app"), [("bract", hub_app), ("bract-site", site_app)])
def test_the_readme_lists_exactly_the_verbs_that_there_are(program: str, app: typer.Typer) -> None:
    block = README.split(f"```verbs {program}\n")[1].split("```")[0]
    listed = {re.split(r"  +", line.removeprefix(program).strip())[0] for line in block.splitlines()}
    assert listed == verbs(app)


def test_every_command_of_the_readme_is_one_that_there_is() -> None:
    known = {"bract": verbs(hub_app), "bract-site": verbs(site_app)}
    for program, rest in re.findall(r"^(?:\S+/)?(bract|bract-site) ([a-z][^\n]*)$", README, re.MULTILINE):
        assert any(f"{rest} ".startswith(f"{verb} ") for verb in known[program]), f"{program} {rest}"


def test_the_import_contracts_hold() -> None:
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()


def test_a_broken_contract_is_found(tmp_path: Path) -> None:
    """The detector's positive control: a client that imports the server."""
    for side in ("client/bract_client", "server/bract_server", "shared/bract"):
        package = tmp_path / side
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
    (tmp_path / "client/bract_client/bad.py").write_text("import bract_server\n")
    config = (
        (ROOT / "pyproject.toml").read_text().split("[tool.importlinter]")[1].split("[[tool.importlinter.contracts]]")
    )
    (tmp_path / "pyproject.toml").write_text(
        f"[tool.importlinter]{config[0]}[[tool.importlinter.contracts]]{config[1]}"
    )
    paths = {"PYTHONPATH": ":".join(str(tmp_path / side) for side in ("client", "server", "shared"))}
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=tmp_path, env=paths, capture_output=True, check=False
    )
    assert done.returncode != 0
