"""What docs/ says is what the code does: commands, tables, functions, codes."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from benchmarks.declared_costs import COSTS
from benchmarks.project import load_project
from emma_agent import known_context
from emma_agent.convex_local import find_node

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
DATA_MODEL = (ROOT / "docs/data-model.md").read_text()
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", OPERATIONS, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for language, body in FENCES
    if language == "console"
    for line in body.splitlines()
    if line.startswith("$ ")
]


@cache
def help_of(*subcommand: str) -> str:
    """What the pinned `convex` command says of one of its commands."""
    done = subprocess.run(
        [str(find_node()), "node_modules/convex/bin/main.js", *subcommand, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_operations_page_is_there(command: str) -> None:
    match shlex.split(command.split(" | ")[-1]):
        case ["npx", "convex", *words]:
            arguments = [word for word in words if not word.startswith("--")]
            subcommand = arguments[:2] if arguments[0] == "env" else arguments[:1]
            options = {word for word in words if word.startswith("--")}
            assert options <= set(re.findall(r"--[a-z-]+", help_of(*subcommand)))
        case ["npm", "run", script]:
            assert f'"{script}": "convex ' in (ROOT / "package.json").read_text()
        case ["make", target]:
            assert f"\n{target}: " in (ROOT / "Makefile").read_text()
        case ["python", "-m", "emma_agent", "keys"]:
            done = subprocess.run(
                [sys.executable, "-m", "emma_agent", "keys"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert re.search(r"^AGENT_JWKS=", done.stdout, re.MULTILINE)
        case ["python", "-m", "emma_agent", subcommand, *words]:
            done = subprocess.run(
                [sys.executable, "-m", "emma_agent", subcommand, "--help"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            options = {word for word in words if word.startswith("--")}
            assert options <= set(re.findall(r"--[a-z-]+", done.stdout))
        case ["python", script]:
            # tests/unit/test_reset_deployment.py runs it.
            assert (ROOT / script).exists()
        case ["export", *assignments]:
            assert all(re.match(r"[A-Z_]+=", assignment) for assignment in assignments)
        case _:
            pytest.fail(f"docs/operations.md names {command!r}; say here how it is checked")
    if " | " in command:
        assert shutil.which(shlex.split(command)[0]) is not None


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def rows_of(heading: str) -> list[list[str]]:
    """The cells of every table below a heading of the data model, up to the next heading."""
    (section,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", DATA_MODEL, re.MULTILINE | re.DOTALL)
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names_in(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def test_every_table_is_explained() -> None:
    rows = [*rows_of("The school"), *rows_of("Sessions"), *rows_of("Learning")]

    assert sorted(row[0].strip("`") for row in rows) == sorted(load_project().tables)
    assert all(len(row) == 4 and all(row) for row in rows)


def test_every_relation_is_drawn() -> None:
    drawn = re.findall(r"^    (\w+) \|\|--\S+ (\w+) : ", DATA_MODEL, re.MULTILINE)
    in_code = [
        (target, table) for table, targets in load_project().tables.items() for target in targets
    ]

    assert sorted(drawn) == sorted(in_code)


def test_every_function_is_there_with_its_builder() -> None:
    explained = {row[0].strip("`"): row for row in [*rows_of("Queries"), *rows_of("Mutations")]}
    internal = {row[0].strip("`") for row in rows_of("Internal")}
    project = load_project()

    assert {path: row[1].strip("`") for path, row in explained.items()} == {
        path: function.builder for path, function in project.public.items()
    }
    assert internal == set(project.functions) - set(project.public)
    assert {row[0].strip("`") for row in rows_of("Queries")} == set(project.public_queries)


def test_every_builder_says_who_may_call() -> None:
    told = set().union(*(names_in(row[0]) for row in rows_of("Functions")))

    assert told >= {function.builder for function in load_project().functions.values()}


def test_the_costs_are_the_declared_ones() -> None:
    assert {row[0].strip("`"): row[3] for row in rows_of("Queries")} == {
        path: cost.as_text() for path, cost in COSTS.items()
    }


def test_every_code_is_explained_with_its_kind() -> None:
    told = {row[0].strip("`"): row[1] for row in rows_of("Errors")}

    assert told == {code: kind for kind, codes in load_project().codes.items() for code in codes}


def test_every_code_is_thrown_by_a_function_and_expected_by_a_test() -> None:
    codes = set().union(*load_project().codes.values())
    functions = [path for path in (ROOT / "convex").rglob("*.ts") if path.name != "errors.ts"]
    tests = [*(ROOT / "tests/functions").glob("*.test.ts"), *(ROOT / "tests/contract").glob("*.py")]
    thrown = "\n".join(path.read_text() for path in functions)
    expected = "\n".join(path.read_text() for path in tests)

    # `erased` is thrown by its constant.
    assert {code for code in codes - {"erased"} if f'"{code}"' not in thrown} == set()
    assert {code for code in codes if not re.search(f"[\"'`]{code}[\"'`]", expected)} == set()


def test_every_variable_of_the_deployment_is_explained() -> None:
    """Those that the functions read; the agent's two stand in auth.config.ts."""
    files = [path for path in (ROOT / "convex").rglob("*.ts") if "_generated" not in path.parts]
    read = set().union(
        *(
            re.findall(r"process\.env\.([A-Z_]+)|\"([A-Z]+_DAYS_[A-Z_]+)\"", path.read_text())
            for path in files
        )
    )
    names = {name for pair in read for name in pair if name}
    pages = OPERATIONS + DATA_MODEL

    assert names >= {"AGENT_JWKS", "ERASURE_KEY"}
    assert {name for name in names if f"`{name}`" not in pages} == set()


def test_the_operations_page_tells_how_long_and_how_much_is_kept_on_a_workers_disk() -> None:
    on_disk = OPERATIONS.partition("## What lies on a worker's disk")[2].partition("\n## ")[0]
    for told in (
        f"{known_context.KEPT_FOR_S / 86_400:.0f} days after that",
        f"at most {known_context.MAX_BYTES // 1024**2} MiB",
        f"at most {known_context.MAX_FILES:,} and {known_context.MAX_TOTAL_BYTES // 1024**2} MiB",
        f"<deployment>{known_context.SUFFIX}`",
    ):
        assert told in on_disk
    code = "".join(path.read_text() for path in (ROOT / "emma_agent").glob("*.py"))
    events = set(re.findall(r"`((?:lesson|known_context)\.[a-z_]+)`", on_disk))
    assert len(events) == 5
    for event in events:
        assert f'"{event}"' in code
