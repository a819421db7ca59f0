"""Reading a journal in batches, damaged places included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from .encoding import encode
from .journal import Journal, decode_line
from .limits import MAX_BATCH_BYTES, MAX_BATCH_RECORDS
from .log import logger
from .records import LostRecord


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a journal: the next record has `seq`, and no line before `offset` holds it."""

    offset: int
    seq: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One record as it goes to Convex, and where the next one begins."""

    seq: int
    record: dict[str, Any]
    size: int
    offset: int

    @property
    def kind(self) -> str:
        return str(self.record.get("kind"))

    @property
    def after(self) -> Position:
        return Position(self.offset, self.seq + 1)


class Lines(Protocol):
    """What a reader reads: a journal, or the memory of an outbox that the disk refuses."""

    def lines(self, offset: int) -> Iterator[tuple[bytes | None, int]]: ...


class JournalReader:
    """Turns a journal's lines into records in `seq` order, without gaps.

    A line whose checksum is wrong is a damaged place. What it held is announced by a `lost`
    record as soon as a readable line tells how far it went, or at the journal's end.

    Attributes:
        damaged: lines that could not be read, since this reader began.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.damaged = 0
        self._reported_to = 0
        self._told_torn = False

    def start(self) -> Position:
        """Before the first record."""
        return Position(self._journal.body_offset, 0)

    def read(
        self, position: Position, *, tail: Iterator[bytes] | None = None, final: bool = False
    ) -> list[Entry]:
        """The next records, as many as go into one batch; none if there are none.

        Args:
            tail: lines that follow the file but are not in it yet.
            final: nothing will be appended any more, so that a damaged end is the end.
        """
        batch = _Batch()
        offset, expected, unreadable = position.offset, position.seq, 0
        end_of_lines = offset
        for line, end in self._all_lines(offset, tail):
            end_of_lines = end
            if line == b"":
                continue  # what makes a line of its own of the one behind it (`Journal.append`)
            record = _record(line)
            if record is None:
                unreadable += 1
                self._report(end)
                continue
            seq = record["seq"]
            if seq < expected:
                continue
            # A loss that the outbox announced covers the numbers before its own.
            begins = record["fromSeq"] if record["kind"] == "lost" else seq
            if begins > expected and not batch.add(
                self._lost(expected, begins - 1, record["createdAt"], offset)
            ):
                break
            if not batch.add(Entry(seq, record, 0 if line is None else len(line), end)):
                break
            offset, expected, unreadable = end, seq + 1, 0
        else:
            if final:
                self._report_torn_end(end_of_lines)
            if final and unreadable and batch.has_room:
                last = expected + unreadable - 1
                created_at = batch.last_created_at or self._journal.header.started_at_ms
                batch.add(self._lost(expected, last, created_at, self._journal.size))
        return batch.entries

    def _all_lines(
        self, offset: int, tail: Iterator[bytes] | None
    ) -> Iterator[tuple[bytes | None, int]]:
        yield from self._journal.lines(offset)
        for line in tail or ():
            yield line[:-1], self._journal.size

    def _lost(self, from_seq: int, to_seq: int, created_at_ms: float, offset: int) -> Entry:
        lost = LostRecord(
            created_at=created_at_ms / 1000, from_seq=from_seq, to_seq=to_seq, reason="damaged"
        )
        payload, _ = encode(lost)
        record = {"seq": to_seq, **msgspec.json.decode(payload)}
        return Entry(to_seq, record, len(payload), offset)

    def _report_torn_end(self, end: int) -> None:
        """The process died while it wrote its last line: that append never returned."""
        if self._journal.size > end and not self._told_torn:
            self._told_torn = True
            logger.warning(
                "outbox.torn_last_line",
                extra={"run_id": self._journal.header.run_id, "bytes": self._journal.size - end},
            )

    def _report(self, end: int) -> None:
        if end > self._reported_to:
            self._reported_to = end
            self.damaged += 1
            logger.error(
                "outbox.damaged_line",
                extra={"run_id": self._journal.header.run_id, "offset": end},
            )


class _Batch:
    """Up to 64 records and 512 KiB, and always at least one."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._size = 0

    @property
    def has_room(self) -> bool:
        return len(self.entries) < MAX_BATCH_RECORDS

    @property
    def last_created_at(self) -> float | None:
        return self.entries[-1].record["createdAt"] if self.entries else None

    def add(self, entry: Entry) -> bool:
        full = not self.has_room or self._size + entry.size > MAX_BATCH_BYTES
        if full and self.entries:
            return False
        self.entries.append(entry)
        self._size += entry.size
        return True


def _record(line: bytes | None) -> dict[str, Any] | None:
    payload = None if line is None else decode_line(line)
    if payload is None:
        return None
    try:
        record = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return None
    if isinstance(record, dict) and isinstance(record.get("seq"), int):
        return record
    return None
