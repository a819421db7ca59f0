"""Delivering a journal that its run has left: one way, whoever finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

from .errors import JournalLockedError, OutboxError
from .journal import Journal
from .log import logger
from .lost_run import end_lost_run
from .recorder import speaking_for
from .sender import Held, Sender

if TYPE_CHECKING:
    from .client import AsyncConvexClient

MAX_IN_FLIGHT = 4
OUT_OF_TIME = Held("out_of_time", unreachable=True)

Found = Literal["delivered", "erased", "held", "owned", "gone", "foreign", "unreadable"]
"""What was found of a journal, or became of it: as the attributes of `SweepReport`, and `gone`,
when another process has delivered it meanwhile."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one journal.

    Attributes:
        records: of it that were delivered.
        run_lost: its run had died without an end, and was given one.
        held: why, if it was held.
        error: why it could not be read, or the fault that came in between.
        deployment: whose it is, if it is foreign.
    """

    found: Found
    records: int = 0
    run_lost: bool = False
    held: Held | None = None
    error: Exception | None = None
    deployment: str = ""


@dataclass(slots=True)
class SweepReport:
    """What was found of a directory's journals, and what became of them.

    Attributes:
        delivered: journals of which Convex now has everything.
        erased: journals of students who were erased, and what was kept of others; they are gone
            here too.
        held: journals with something left that Convex did not take.
        owned: journals of runs that live, or that another sweep has.
        foreign: journals of other deployments; they are left alone.
        unreadable: journals whose header cannot be read.
        records: records that were delivered.
        runs_lost: runs that had died without an end, and were given one.
        held_for: of those held, why, by the file's name; one that was not tried, because Convex
            was out of reach for others, is not among them.
    """

    delivered: int = 0
    erased: int = 0
    held: int = 0
    owned: int = 0
    foreign: int = 0
    unreadable: int = 0
    records: int = 0
    runs_lost: int = 0
    held_for: dict[str, Held] = field(default_factory=dict, compare=False)

    def count(self, path: Path, outcome: Outcome) -> None:
        """Add what became of one journal."""
        self.records += outcome.records
        self.runs_lost += outcome.run_lost
        match outcome.found:
            case "delivered":
                self.delivered += 1
            case "erased":
                self.erased += 1
            case "held":
                self.held += 1
                if outcome.held is not None:
                    self.held_for[path.name] = outcome.held
            case "owned":
                self.owned += 1
            case "foreign":
                self.foreign += 1
            case "unreadable":
                self.unreadable += 1
            case "gone":
                pass
            case _:
                assert_never(outcome.found)


async def deliver_left(
    path: Path,
    client: AsyncConvexClient,
    *,
    deadline: float | None = None,
    on_progress: Callable[[str, int], None] | None = None,
) -> Outcome:
    """Deliver one journal if nobody holds it, and give its run an end if it has none.

    A run that died left no end. It is given one, `run_lost`, as soon as Convex has everything that
    can be read of it, and not before: what its journal holds until then is what the run wrote. The
    end goes through the journal as any record does, so it too survives whoever wrote it.

    Raises nothing for what may be wrong with a journal or with Convex.

    Args:
        client: signs for the journal's student with its `AgentKey`.
        deadline: of the event loop's clock; what is not delivered then is held. None for no end.
        on_progress: called with the run's id and the number of its records that were just delivered.
    """
    try:
        journal = Journal.adopt(path)
    except JournalLockedError as error:
        return Outcome("gone" if error.gone else "owned")
    except (OutboxError, OSError) as error:
        return Outcome("unreadable", error=error)
    try:
        if (deployment := journal.header.deployment) not in ("", client.url):
            return Outcome("foreign", deployment=deployment)
        return await _deliver(journal, client, deadline, on_progress)
    finally:
        journal.close()


async def _deliver(
    journal: Journal,
    client: AsyncConvexClient,
    deadline: float | None,
    on_progress: Callable[[str, int], None] | None,
) -> Outcome:
    sender: Sender | None = None
    held: Held | None = None
    fault: Exception | None = None
    run_lost = False
    timeout = asyncio.timeout_at(deadline)
    try:
        async with timeout, aclosing(speaking_for(client, journal.header)) as speaking:
            sender = Sender(journal, speaking)
            sender.on_progress = _progress_of(sender, on_progress)
            held = await sender.drain()
            if held is None and not sender.ended and not sender.erased:
                end_lost_run(journal, seq=sender.next_seq)
                run_lost = True
                logger.warning("recovery.run_lost", extra=sender.about())
                held = await sender.drain()
        if held is None:
            sender.finish()
    except Exception as error:  # noqa: BLE001  one journal keeps no other back
        if isinstance(error, TimeoutError) and timeout.expired():
            held = OUT_OF_TIME
        else:
            held, fault = Held(type(error).__name__, unreachable=False), error
    erased = sender is not None and sender.erased
    return Outcome(
        "erased" if erased else "delivered" if held is None else "held",
        records=0 if sender is None else sender.delivered,
        run_lost=run_lost,
        held=held,
        error=fault,
    )


def _progress_of(
    sender: Sender, tell: Callable[[str, int], None] | None
) -> Callable[[], None] | None:
    if tell is None:
        return None
    told = 0

    def progressed() -> None:
        nonlocal told
        tell(sender.journal.header.run_id, sender.delivered - told)
        told = sender.delivered

    return progressed
