"""What a public query reads does not grow with the school, and is no more than is declared.

Counts and no times: those are for `make bench-queries`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from benchmarks.declared_costs import ALLOWANCE, COSTS
from benchmarks.filled_school import FilledSchool
from benchmarks.project import load_project

ROOT = Path(__file__).resolve().parents[2]
SIZES = (1_000, 3_000)


@pytest.fixture(scope="module")
def schools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FilledSchool]]:
    started = []
    try:
        for size in SIZES:
            folder = tmp_path_factory.mktemp(f"school-{size}")
            started.append(FilledSchool.start(folder, messages=size))
        yield started
    finally:
        for school in started:
            school.close()


def test_every_public_query_declares_what_it_reads() -> None:
    assert set(load_project().public_queries) == set(COSTS)


@pytest.mark.parametrize("path", COSTS)
def test_a_query_reads_what_its_answer_is_built_from(
    path: str, schools: list[FilledSchool]
) -> None:
    builder = load_project().functions[path].builder
    cost = COSTS[path]
    callers = cost.callers_of(builder)
    for caller in callers:
        answers = [
            school.query(path, cost.args_for(school.names, caller, builder), caller=caller)
            for school in schools
        ]
        read = [answer.usage.documents_read for answer in answers]
        assert [answer.error for answer in answers] == [None, None], caller
        assert max(read) <= cost.declared + ALLOWANCE, caller
        assert len(set(read)) == 1, f"{caller}: {read} documents, by size"
        if caller == callers[0]:
            # What nothing is read of would be flat, too.
            assert min(read) >= cost.declared


def test_the_count_is_sqlites_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statements of one query, run again under SQLite's trace: as many rows, no scan."""
    recorded = tmp_path / "statements.jsonl"
    monkeypatch.setenv("RECORD_SQL", str(recorded))
    monkeypatch.setenv("NODE_OPTIONS", f"--import={ROOT / 'tests/support/record_sql.mjs'}")
    folder = tmp_path / "school"
    folder.mkdir()
    with FilledSchool.start(folder, messages=SIZES[0]) as school:
        args = COSTS["vocabulary:due"].args_for(school.names, "teacher", "studentQuery")
        recorded.touch()
        usage = school.query("vocabulary:due", args, caller="teacher").usage
    statements = [json.loads(line) for line in recorded.read_text().splitlines()]

    rows, scanned = traced(folder / "db.sqlite3", statements)

    assert usage.documents_read == 52
    assert [len(rows), sum(rows)] == [usage.documents_read, usage.bytes_read]
    assert scanned == 0


def traced(database: Path, statements: list[dict[str, Any]]) -> tuple[list[int], int]:
    """The documents' sizes, one for each row of SQLite's trace, and rows that a scan looked at."""
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    # SQLite reads its schema once, with the first statement.
    connection.execute("SELECT 1 FROM docs LIMIT 0")
    events: list[dict[str, Any]] = []
    connection.trace_v2(apsw.SQLITE_TRACE_ROW | apsw.SQLITE_TRACE_PROFILE, events.append)
    sizes = []
    for statement in statements:
        values = [plain(value) for value in statement["values"]]
        cursor = connection.execute(statement["sql"], values)
        column = [name for name, _ in cursor.get_description()].index("size")
        sizes += [row[column] for row in cursor]
    connection.trace_v2(0)
    rows = [event for event in events if event["code"] == apsw.SQLITE_TRACE_ROW]
    assert len(rows) == len(sizes)
    profiles = [event for event in events if event["code"] == apsw.SQLITE_TRACE_PROFILE]
    assert len(profiles) == len(statements)
    steps = [one["stmt_status"]["SQLITE_STMTSTATUS_FULLSCAN_STEP"] for one in profiles]
    connection.close()
    return sizes, sum(steps)


def plain(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value
