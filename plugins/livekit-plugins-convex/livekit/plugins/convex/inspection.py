"""What lies in an outbox directory, for those who look after it. Changes nothing there."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from .errors import OutboxError
from .journal import DAMAGED_SUFFIX, DEAD_SUFFIX, SUFFIX, Header, Journal, decode_line


@dataclass(frozen=True, slots=True)
class JournalSummary:
    """One journal as it is on disk at this moment.

    Attributes:
        header: None if it cannot be read; `problem` then says why.
        live: a process holds it: its run, or a delivery.
        kept: it was delivered as far as it can be read, and kept for its damaged lines.
        records: the `seq` after the last that can be read.
        confirmed: how many of them Convex has, as far as this directory knows.
        ended: its run's end is among the records.
        damaged_lines: lines that cannot be read.
        size: bytes.
        modified_at: Unix seconds.
    """

    path: Path
    header: Header | None
    problem: str | None
    live: bool
    kept: bool
    records: int
    confirmed: int
    ended: bool
    damaged_lines: int
    size: int
    modified_at: float

    @property
    def run_id(self) -> str:
        return self.path.stem

    @property
    def pending(self) -> int:
        """Records that wait for Convex."""
        return 0 if self.kept else max(0, self.records - self.confirmed)


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """A record that Convex refused for good.

    Attributes:
        code, field: of the refusal.
        at: when it was refused, Unix seconds.
        record: as it was sent; it may hold what somebody said.
    """

    run_id: str
    header: Header | None
    seq: int
    code: str
    field: str | None
    at: float
    record: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.record.get("kind"))


def journals(directory: Path) -> list[JournalSummary]:
    """Every journal there, also those that were kept for their damage; the oldest first.

    Reads all of them: a gigabyte takes some seconds.

    Raises:
        OSError: the directory or a file cannot be read.
    """
    # A directory that cannot be listed is an error, and not an empty one.
    paths = [path for path in directory.iterdir() if path.suffix in (SUFFIX, DAMAGED_SUFFIX)]
    found = []
    for path in paths:
        # A worker may deliver and delete it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            found.append(_summary(path))
    return sorted(found, key=lambda journal: (_began_at(journal), journal.path))


def dead_records(directory: Path, run_id: str | None = None) -> list[DeadRecord]:
    """The records that were set aside, of one run or of all, by run and `seq`.

    Raises:
        OSError: the directory or a file cannot be read.
    """
    found: list[DeadRecord] = []
    for path in sorted(directory.iterdir()):
        if path.suffix != DEAD_SUFFIX or run_id not in (None, path.stem):
            continue
        with contextlib.suppress(FileNotFoundError):
            header, entries = parse_dead(path.read_bytes())
            found += [
                DeadRecord(
                    path.stem,
                    header,
                    seq,
                    entry["code"],
                    entry.get("field"),
                    entry["at"] / 1000,
                    entry["record"],
                )
                for seq, entry in sorted(entries.items())
            ]
    return found


def parse_dead(data: bytes) -> tuple[Header | None, dict[int, dict[str, Any]]]:
    """The header and the entries by `seq` of a dead file's content; damaged lines are left out."""
    header, entries = None, {}
    for line in data.split(b"\n"):
        if (payload := decode_line(line)) is None:
            continue
        value = msgspec.json.decode(payload)
        if "seq" in value:
            entries[value["seq"]] = value
        elif header is None:
            with contextlib.suppress(msgspec.ValidationError):
                header = msgspec.json.decode(payload, type=Header)
    return header, entries


def lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """A journal's header and records as they were written; None for a line that is damaged.

    Raises:
        OutboxError: its header cannot be read.
        OSError: the file cannot be read.
    """
    journal = Journal.look(path)
    try:
        for line, _ in journal.lines(0):
            if line == b"":
                continue
            payload = None if line is None else decode_line(line)
            yield None if payload is None else msgspec.json.decode(payload)
    finally:
        journal.close()


def is_held(path: Path) -> bool:
    """Whether a process holds the journal. For an instant this holds off a sweep, not its run.

    A run locks its journal before it gives it this name, and whoever finds it locked comes again.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _summary(path: Path) -> JournalSummary:
    kept = path.suffix == DAMAGED_SUFFIX
    live, about = is_held(path), path.stat()
    header, problem, records, confirmed_to, ended, damaged = None, None, 0, -1, False, 0
    try:
        journal = Journal.look(path)
    except OutboxError as error:
        problem = str(error)
    else:
        header = journal.header
        if (confirmed := journal.confirmed()) is not None:
            confirmed_to = confirmed.seq
        journal.close()
        for record in lines(path):
            if record is None:
                damaged += 1
            elif isinstance(seq := record.get("seq"), int):
                records = max(records, seq + 1)
                ended = ended or record.get("kind") == "runEnded"
    return JournalSummary(
        path=path,
        header=header,
        problem=problem,
        live=live,
        kept=kept,
        records=records,
        confirmed=min(records, confirmed_to + 1),
        ended=ended,
        damaged_lines=damaged,
        size=about.st_size,
        modified_at=about.st_mtime,
    )


def _began_at(journal: JournalSummary) -> float:
    header = journal.header
    return journal.modified_at if header is None else header.started_at_ms / 1000
