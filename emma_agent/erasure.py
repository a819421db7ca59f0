"""`erase`: remove a student everywhere this command reaches, and say what was removed.

Convex deletes a page at a time; the command waits, and may be interrupted and run again: the
erasure goes on by itself, and its receipt stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from emma_agent.known_context import KEPT_FOR_S
from emma_agent.school import Administrator, CallError
from livekit.plugins.convex import erase_journals

__all__ = ["Receipt", "erase", "erase_here", "name_of", "receipt_of", "table_of"]

_POLL_S: Final = 0.5
# Nothing was deleted for so long: the deployment's scheduler does not run.
_STALLED_AFTER_S: Final = 60.0

OUT_OF_REACH: Final = (
    "Other workers' disks are out of reach from here: what they hold of this student is deleted "
    "when they next ask Convex, what they last knew of the student after "
    f"{KEPT_FOR_S / 86_400:.0f} days at the latest, and nothing of it can come back."
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What Convex has deleted so far, by table. Instants are Unix seconds."""

    requested_at: float
    finished_at: float | None
    deleted: Mapping[str, int]

    @classmethod
    def from_convex(cls, value: Mapping[str, Any]) -> Self:
        finished = value.get("finishedAt")
        return cls(
            requested_at=value["requestedAt"] / 1000,
            finished_at=None if finished is None else finished / 1000,
            deleted={table: int(rows) for table, rows in value["deleted"].items()},
        )

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(self.deleted.values())


def name_of(administrator: Administrator, student_id: str) -> str:
    """The student's name, to be asked about.

    Raises:
        CallError: there is no such student.
    """
    args = {"studentId": student_id, "cursor": None}
    page: Any = administrator.query("students:exportDataInternal", args)
    return str(page["rows"][0]["row"]["name"])


def receipt_of(administrator: Administrator, student_id: str) -> Receipt | None:
    """How the student's erasure stands; None if there was none.

    Raises:
        CallError: also when the deployment has no ERASURE_KEY.
    """
    found: Any = administrator.query("students:erasureInternal", {"studentId": student_id})
    return None if found is None else Receipt.from_convex(found)


def erase(
    administrator: Administrator,
    student_id: str,
    *,
    on_progress: Callable[[Receipt], None],
    sleep: Callable[[float], object] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Receipt:
    """Erase the student in Convex and wait until nothing is left; go on where that was begun.

    Args:
        on_progress: called whenever rows were deleted.

    Raises:
        CallError: refused, out of reach, or nothing was deleted any more for a minute.
    """
    begun: Any = administrator.mutation("students:eraseInternal", {"studentId": student_id})
    receipt = Receipt.from_convex(begun)
    changed_at = monotonic()
    while receipt.finished_at is None:
        sleep(_POLL_S)
        now = receipt_of(administrator, student_id) or receipt
        if now != receipt:
            receipt, changed_at = now, monotonic()
            on_progress(receipt)
        elif monotonic() - changed_at > _STALLED_AFTER_S:
            raise CallError(
                [
                    f"{receipt.rows} rows are deleted, and for a minute no more were: see that the "
                    "deployment's scheduler runs, then run the command again. The student is "
                    "blocked already."
                ]
            )
    return receipt


def erase_here(directory: Path, *, student_id: str, deployment: str) -> list[str]:
    """Delete what is kept of the student in a directory of this machine; what was found, as lines.

    Their journals, and what Convex last knew of them (known_context.py), of whichever deployment.

    Raises:
        CallError: the disk refused.
    """
    try:
        found = erase_journals(directory, student_id=student_id, deployment=deployment)
    except OSError as error:
        raise CallError(
            [
                f"{directory}: {error.strerror}; what is there of the student is deleted when a "
                "worker next asks Convex about it, or run the command again."
            ]
        ) from None
    lines = []
    if found.deleted:
        lines.append(f"Journals deleted in {directory}: {found.deleted}")
    if found.beside:
        lines.append(f"Last known contexts deleted in {directory}: {found.beside}")
    if found.held:
        lines.append(
            f"Journals in {directory} that their run deletes with its next record: {found.held}"
        )
    return lines


def table_of(receipt: Receipt) -> list[str]:
    """The receipt as lines: a table of counts."""
    width = max(len(table) for table in receipt.deleted)
    lines = [f"{table:<{width}}  {rows:>8,}" for table, rows in receipt.deleted.items()]
    lines.append(f"{'rows deleted':<{width}}  {receipt.rows:>8,}")
    lines.append(f"Requested {_instant(receipt.requested_at)}")
    if receipt.finished_at is not None:
        lines.append(f"Finished  {_instant(receipt.finished_at)}")
    return lines


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
