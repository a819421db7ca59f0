"""How each journal of an outbox stands, in an operator's words, and what to do about it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from livekit.plugins.convex.inspection import DeadRecord, JournalSummary

__all__ = ["Standing", "State", "standing_of"]

State = Literal["live", "waiting", "held", "dead", "damaged", "foreign"]

_DRAIN: Final = (
    "a running worker delivers it within a minute; `python -m emma_agent outbox drain` does it now"
)
_OPEN: Final = "its worker delivers it; if none runs, look whose process holds the file"


@dataclass(frozen=True, slots=True)
class Standing:
    """One journal, or what was set aside of one run.

    Attributes:
        state: `live`: a process holds it. `waiting`: it is nobody's, and the next sweep delivers
            it. `held`: it cannot be delivered as things are. `dead`: records that Convex refused
            for good. `damaged`: it has lines that cannot be read. `foreign`: another deployment's.
        records, confirmed, pending: numbers of records; of the dead all are pending.
        size: bytes.
        age_s: seconds since its run began.
        remedy: None where there is nothing to do.
    """

    run_id: str
    session_key: str | None
    deployment: str | None
    records: int
    confirmed: int
    pending: int
    size: int
    age_s: float
    state: State
    remedy: str | None = None

    @property
    def waits(self) -> bool:
        """Something of it is not in Convex, or wants an operator."""
        return self.state != "live" or self.pending > 0

    def line(self) -> str:
        """For a terminal."""
        return f"{self.run_id}: {self.state}, {self.pending} pending; {self.remedy}"

    def because(self, reason: str, remedy: str | None) -> Standing:
        """The same, held for a reason that only Convex could tell."""
        return replace(self, state="held", remedy=f"{reason}: {remedy}" if remedy else reason)

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "run": self.run_id,
            "session": self.session_key,
            "deployment": self.deployment,
            "records": self.records,
            "confirmed": self.confirmed,
            "pending": self.pending,
            "bytes": self.size,
            "ageSeconds": round(self.age_s, 1),
            "state": self.state,
            "remedy": self.remedy,
        }


def standing_of(
    journals: list[JournalSummary],
    dead: list[DeadRecord],
    *,
    deployment: str | None,
    now: float | None = None,
) -> list[Standing]:
    """How each journal stands, and then each run's records that were set aside.

    Args:
        deployment: the worker's; None if it is not known.
        now: Unix seconds; None for the clock's.
    """
    at = time.time() if now is None else now
    found = [_of_journal(journal, deployment, at) for journal in journals]
    by_run: dict[str, list[DeadRecord]] = {}
    for record in dead:
        by_run.setdefault(record.run_id, []).append(record)
    return found + [_of_dead(run_id, records, at) for run_id, records in by_run.items()]


def _of_journal(journal: JournalSummary, deployment: str | None, now: float) -> Standing:
    header = journal.header
    state, remedy = _state(journal, deployment)
    began_at = journal.modified_at if header is None else header.started_at_ms / 1000
    return Standing(
        run_id=journal.run_id,
        session_key=None if header is None else header.session_key,
        deployment=None if header is None else header.deployment or None,
        records=journal.records,
        confirmed=journal.records if journal.kept else journal.confirmed,
        pending=journal.pending,
        size=journal.size,
        age_s=now - began_at,
        state=state,
        remedy=remedy,
    )


def _state(journal: JournalSummary, deployment: str | None) -> tuple[State, str | None]:
    inspect = f"`python -m emma_agent outbox inspect {journal.run_id}`"
    if journal.kept:
        return "damaged", (
            f"what can be read of it is delivered; look with {inspect}, and delete {journal.path} "
            "when nobody needs it any more"
        )
    if journal.live:
        return "live", _OPEN if journal.pending else None
    header = journal.header
    if header is None:
        if journal.problem is not None and "newer version" in journal.problem:
            return "held", journal.problem
        return "damaged", (
            f"{journal.problem}, so nobody knows whose it is: put {journal.path} away if it may "
            "still be needed, and delete it here"
        )
    if header.deployment not in ("", deployment) and deployment is not None:
        return "foreign", (
            f"a worker of {header.deployment} delivers it; if that address was wrong, "
            f"`python -m emma_agent outbox readdress --from {header.deployment}`"
        )
    if deployment is None:
        return "held", "CONVEX_URL is not set, so nothing is delivered from here: set it"
    if journal.damaged_lines:
        return "damaged", f"{journal.damaged_lines} lines cannot be read; of the others, {_DRAIN}"
    return "waiting", _DRAIN


def _of_dead(run_id: str, records: list[DeadRecord], now: float) -> Standing:
    header = records[0].header
    return Standing(
        run_id=run_id,
        session_key=None if header is None else header.session_key,
        deployment=None if header is None else header.deployment or None,
        records=len(records),
        confirmed=0,
        pending=len(records),
        size=sum(len(str(record.record)) for record in records),
        age_s=now - (records[0].at if header is None else header.started_at_ms / 1000),
        state="dead",
        remedy=(
            f"`python -m emma_agent outbox dead {run_id}` says why, "
            f"`python -m emma_agent outbox retry {run_id} --truncate` sends them again"
        ),
    )
