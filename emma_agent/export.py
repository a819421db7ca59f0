"""`export`: everything that is held about a student, as files that other programs read.

jsonl   one line for each row: {"table": …, "row": …}
csv     one file for each table; what is no plain value in a cell is JSON
xapi    statements of xAPI 1.0.3, as one JSON array: what was said, answered and completed
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, Literal

from emma_agent.school import Administrator, CallError
from emma_agent.xapi import Statements

__all__ = ["Format", "Row", "export", "rows_of"]

Format = Literal["jsonl", "csv", "xapi"]

_FUNCTION: Final = "students:exportDataInternal"
_DIRECTORY_MODE: Final = 0o700


@dataclass(frozen=True, slots=True)
class Row:
    """One row as Convex has it; whole numbers are whole again."""

    table: str
    fields: dict[str, Any]


def rows_of(administrator: Administrator, student_id: str) -> Iterator[Row]:
    """Everything held about the student, table by table; first the student, then the sessions.

    Raises:
        CallError: there is no such student, or the deployment refused.
    """
    cursor: str | None = None
    while True:
        args = {"studentId": student_id, "cursor": cursor}
        page: Any = administrator.query(_FUNCTION, args)
        for row in page["rows"]:
            yield Row(row["table"], _plain(row["row"]))
        cursor = page["cursor"]
        if page["isDone"]:
            return


def export(
    administrator: Administrator, student_id: str, *, form: Format, output: Path | None
) -> list[Path]:
    """Write everything held about the student; return the files.

    A file has its name only when it is whole. Files and a directory that is made are for their
    owner alone.

    Args:
        output: the directory; None writes to the standard output, which `csv` cannot.

    Raises:
        CallError: there is no such student, the deployment refused, or the disk did.
    """
    rows = rows_of(administrator, student_id)
    # Nothing is made for who is no student.
    rows = chain([next(rows)], rows)
    statements = Statements(student_id, administrator.url)
    if output is None:
        _write_out(rows, form=form, statements=statements)
        return []
    try:
        output.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        if form == "csv":
            return list(_write_tables(rows, output))
        path = output / f"{student_id}.{'jsonl' if form == 'jsonl' else 'xapi.json'}"
        with _whole(path) as file:
            _write(file, rows, form=form, statements=statements)
        return [path]
    except OSError as error:
        raise CallError(
            [f"{output}: {error.strerror}; give --output a directory that you may write."]
        ) from None


def _write_out(rows: Iterable[Row], *, form: Format, statements: Statements) -> None:
    try:
        _write(sys.stdout, rows, form=form, statements=statements)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has enough; the command line ends without a word.
        raise
    except OSError as error:
        # What is still in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CallError(
            [f"the standard output: {error.strerror}; give a directory with --output."]
        ) from None


def _write(file: IO[str], rows: Iterable[Row], *, form: Format, statements: Statements) -> None:
    if form == "jsonl":
        for row in rows:
            file.write(f"{_json({'table': row.table, 'row': row.fields})}\n")
        return
    # Line by line, since a student's statements may be many.
    before = "[\n"
    for row in rows:
        for statement in statements.of(row.table, row.fields):
            file.write(f"{before}{_json(statement)}")
            before = ",\n"
    file.write("[]\n" if before == "[\n" else "\n]\n")


def _write_tables(rows: Iterable[Row], output: Path) -> Iterator[Path]:
    """One file for each table. Its columns are known at its end: until then its rows wait."""
    waiting = _Table("", output)
    for row in rows:
        if row.table != waiting.name:
            yield from waiting.write()
            waiting = _Table(row.table, output)
        waiting.add(row.fields)
    yield from waiting.write()


class _Table:
    """Rows of one table, on disk until all columns are known."""

    def __init__(self, name: str, output: Path) -> None:
        self.name = name
        self._path = output / f"{name}.csv"
        self._columns: dict[str, None] = {}
        # Unlinked from the beginning: nothing of it is left, whatever happens.
        self._rows = tempfile.TemporaryFile("w+", encoding="utf-8", dir=output)  # noqa: SIM115

    def add(self, fields: dict[str, Any]) -> None:
        self._columns.update(dict.fromkeys(fields))
        self._rows.write(f"{_json(fields)}\n")

    def write(self) -> Iterator[Path]:
        """The file, if there is a row for it."""
        with self._rows:
            if not self._columns:
                return
            self._rows.seek(0)
            with _whole(self._path) as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(self._columns)
                for line in self._rows:
                    fields = json.loads(line)
                    writer.writerow(_cell(fields.get(column)) for column in self._columns)
        yield self._path


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A file that takes its name when everything is in it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
            yield file
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cell(value: object) -> object:
    """Empty where the row has no such field."""
    match value:
        case None:
            return ""
        case bool() | dict() | list():
            return _json(value)
        case _:
            return value


def _plain(value: Any) -> Any:
    """Convex knows one kind of number: a count of 3 arrives as 3.0."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value
