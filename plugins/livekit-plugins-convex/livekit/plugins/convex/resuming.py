"""What a job finds on this machine of its user's former runs: to deliver, and to read.

A user who comes back after a crash may be faster than the worker's recovery. The new job delivers
what is left of theirs and asks its own query; where Convex is away, the journals themselves tell.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import msgspec

from .encoding import decode
from .errors import OutboxError, told
from .journal import (
    SUFFIX,
    Header,
    Journal,
    decode_line,
    default_directory,
    is_begun_here,
    read_header,
)
from .log import logger
from .records import Record, kind_of
from .salvage import MAX_IN_FLIGHT, Outcome, SweepReport, deliver_left

if TYPE_CHECKING:
    from .client import AsyncConvexClient

# A job that closes gives its journal up within a moment of its last answer.
_ASK_AGAIN_AFTER_S = 0.05
# Headers read in one go beside the loop: some milliseconds.
_HEADERS_AT_ONCE = 256

_R = TypeVar("_R", bound=Record)
_R_co = TypeVar("_R_co", bound=Record, covariant=True)


async def deliver_dead_journals(
    client: AsyncConvexClient,
    directory: Path | str | None = None,
    *,
    subject: str,
    timeout_s: float,
) -> SweepReport:
    """Deliver what the former runs of one user have left here, before they are carried on.

        await convex.deliver_dead_journals(client, subject=identity.subject, timeout_s=2.0)

    For the beginning of a job. As `Recovery` does it: what nobody holds is delivered, and a run
    that died without an end is given one. A journal that another process holds, a former job that
    is closing or a worker's sweep, is waited for until it is gone, given up, or the time is up;
    not so if this process began its run, or if Convex proves to be out of reach.

    Raises nothing for a bad journal or a Convex that is away: the report tells. Without journals
    it costs a directory listing, and for each one that is not this user's the reading of its header,
    beside the event loop.

    Args:
        client: signs for the user with its `AgentKey`; stays open.
        directory: where the journals lie; None for the recorder's default.
        subject: whose journals: `SessionIdentity.subject`, as the recorder wrote it.
        timeout_s: seconds for everything; what is not done then is left as it is.

    Returns:
        Counts of this user's journals alone. `held`: Convex has not everything of them. `owned`:
        others held them until the end; their runs may live. With neither, Convex has all there was.
    """
    report = SweepReport()
    folder = default_directory() if directory is None else Path(directory)
    deadline = asyncio.get_running_loop().time() + timeout_s
    try:
        async with asyncio.timeout_at(deadline):
            found = await _find(folder, subject)
    except TimeoutError:
        logger.warning("recovery.out_of_time", extra={"path": str(folder), "wait_s": timeout_s})
    except OSError as error:
        extra = {"path": str(folder), "error": told(error)}
        logger.warning("recovery.directory_unreadable", extra=extra)
    else:
        former = [path for path, header in found if not is_begun_here(header.run_id)]
        await _Former(client, report, deadline).deliver(former)
    return report


class _Former:
    """Delivers some journals, a few at a time, until a deadline of the event loop's clock."""

    def __init__(self, client: AsyncConvexClient, report: SweepReport, deadline: float) -> None:
        self._client = client
        self._report = report
        self._deadline = deadline
        self._in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._unreachable = False

    async def deliver(self, paths: Sequence[Path]) -> None:
        async with asyncio.TaskGroup() as group:
            for path in paths:
                group.create_task(self._deliver(path))

    async def _deliver(self, path: Path) -> None:
        outcome = Outcome("held")
        while True:
            async with self._in_flight:
                if self._unreachable:
                    break  # also for who holds a journal that is waited for
                outcome = await deliver_left(path, self._client, deadline=self._deadline)
            if outcome.held is not None and outcome.held.unreachable:
                self._unreachable = True
            if outcome.found != "owned" or (left_s := self._left_s()) <= 0:
                break
            await asyncio.sleep(min(_ASK_AGAIN_AFTER_S, left_s))
        self._report.count(path, outcome)
        if outcome.error is not None:
            extra = {"path": path.name, "error": told(outcome.error)}
            logger.warning("recovery.journal_failed", extra=extra)

    def _left_s(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class JournaledRun(Generic[_R_co]):
    """What the journal of one run says.

    Attributes:
        session_key: the session that the run began or carried on.
        started_at: Unix seconds.
        records: in the order of their `seq`, which damaged ones leave out.
    """

    run_id: str
    session_key: str
    started_at: float
    records: tuple[_R_co, ...]


@overload
def read_journals(
    directory: Path | str | None = None,
    *,
    subject: str,
    types: Sequence[type[_R]],
    session_key: str | None = None,
    deployment: str | None = None,
) -> list[JournaledRun[_R]]: ...


# A list of several types has no type that mypy could find for `_R`.
@overload
def read_journals(
    directory: Path | str | None = None,
    *,
    subject: str,
    types: Iterable[type[Record]],
    session_key: str | None = None,
    deployment: str | None = None,
) -> list[JournaledRun[Record]]: ...


def read_journals(
    directory: Path | str | None = None,
    *,
    subject: str,
    types: Iterable[type[Record]],
    session_key: str | None = None,
    deployment: str | None = None,
) -> Sequence[JournaledRun[Record]]:
    """Read what lies here of one user's runs, the oldest first; change nothing.

    For a job that carries a conversation on while Convex is away. Runs that live and runs that died
    alike, without a lock: records of a run that lives may follow. What Convex has taken for good,
    with the end of its run, is not here any more.

    Blocks while it reads: some milliseconds for a lesson, a second for 100,000 records, so call it
    by `asyncio.to_thread`.

    Args:
        directory: where the journals lie; None for the recorder's default.
        subject: whose journals: `SessionIdentity.subject`, as the recorder wrote it.
        types: subclasses of `Record`, several best as a tuple, which type checkers see through;
            records of other kinds are passed over, as are damaged lines.
        session_key: of this session alone; None for all.
        deployment: of this one alone, and of none: `AsyncConvexClient.url`. None for all.

    Raises:
        OSError: the directory, or a journal of this user, cannot be read. One that is not there is
            an empty one.
    """
    folder = default_directory() if directory is None else Path(directory)
    classes = {kind_of(cls): cls for cls in types}
    runs: list[JournaledRun[Record]] = []
    for path, header in _of_subject(_journals(folder), subject):
        if session_key not in (None, header.session_key):
            continue
        if deployment is not None and header.deployment not in ("", deployment):
            continue
        # It may be delivered and deleted meanwhile.
        with contextlib.suppress(FileNotFoundError, OutboxError):
            records = tuple(_records(path, classes))
            started_at = header.started_at_ms / 1000
            runs.append(JournaledRun(header.run_id, header.session_key, started_at, records))
    return runs


async def _find(directory: Path, subject: str) -> list[tuple[Path, Header]]:
    """As `_of_subject`, beside the event loop; it can be cancelled."""
    paths = await asyncio.to_thread(_journals, directory)
    found: list[tuple[Path, Header]] = []
    for first in range(0, len(paths), _HEADERS_AT_ONCE):
        some = paths[first : first + _HEADERS_AT_ONCE]
        found += await asyncio.to_thread(_of_subject, some, subject)
    return sorted(found, key=_age)


def _journals(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if path.suffix == SUFFIX]
    except FileNotFoundError:
        return []


def _of_subject(paths: Iterable[Path], subject: str) -> list[tuple[Path, Header]]:
    """The journals of a subject with their headers, the oldest first."""
    found: list[tuple[Path, Header]] = []
    for path in paths:
        # Whose one without a header is, nobody can tell: recovery says so.
        with contextlib.suppress(OutboxError, OSError):
            header = read_header(path)
            if header.subject == subject:
                found.append((path, header))
    return sorted(found, key=_age)


def _age(found: tuple[Path, Header]) -> tuple[float, str]:
    _, header = found
    return header.started_at_ms, header.run_id


class _Place(msgspec.Struct):
    seq: int
    kind: str


_place = msgspec.json.Decoder(_Place)


def _records(path: Path, classes: Mapping[str, type[Record]]) -> Iterator[Record]:
    journal = Journal.look(path)
    try:
        expected = 0
        for line, _ in journal.lines(journal.body_offset):
            payload = None if line is None else decode_line(line)
            if payload is None:
                continue
            with contextlib.suppress(msgspec.DecodeError):
                place = _place.decode(payload)
                cls = classes.get(place.kind)
                if cls is not None and place.seq >= expected:
                    yield decode(payload, cls)
                expected = max(expected, place.seq + 1)
    finally:
        journal.close()
