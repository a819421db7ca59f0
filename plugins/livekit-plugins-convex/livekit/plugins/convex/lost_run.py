"""The end of a run that died without one."""

from __future__ import annotations

import contextlib

import msgspec

from .encoding import encode
from .journal import MAX_LINE_BYTES, Journal, decode_line
from .outbox import numbered_line
from .records import RunEndedRecord

RUN_LOST = "run_lost"


def end_lost_run(journal: Journal, *, seq: int) -> None:
    """Append the end that the run could not write itself: `run_lost`, when it was last heard of.

    A last line that was torn becomes a damaged line of its own; what it was to hold was never
    promised, so the end has its `seq`.

    Args:
        journal: adopted, without a `runEnded`, and confirmed by Convex as far as it can be read.
        seq: the next that Convex expects.

    Raises:
        OSError: the disk did not take it; the journal is what it was.
    """
    end = RunEndedRecord(created_at=_last_instant_ms(journal) / 1000, reason=RUN_LOST)
    journal.append(numbered_line(seq, encode(end)[0]))


def _last_instant_ms(journal: Journal) -> float:
    """`createdAt` of the last record that can be read, else of the run's start."""
    last = journal.header.started_at_ms
    # Enough for a whole line, wherever in one it begins; a journal may be a quarter of a gigabyte.
    offset = max(journal.body_offset, journal.size - 2 * MAX_LINE_BYTES)
    for line, _ in journal.lines(offset):
        payload = None if line is None else decode_line(line)
        if payload is not None:
            with contextlib.suppress(msgspec.DecodeError):
                last = msgspec.json.decode(payload, type=_Dated).created_at
    return last


class _Dated(msgspec.Struct, rename="camel"):
    created_at: float
