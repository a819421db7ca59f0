"""What lies here of a student who was erased: who knows it deletes it, who does not asks Convex."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .beside import erase_beside
from .errors import ConvexClientError, FunctionError, JournalLockedError, OutboxError
from .journal import DAMAGED_SUFFIX, DEAD_SUFFIX, SUFFIX, Header, Journal, read_header
from .limits import ERASED
from .log import logger
from .sender import RECORD, REQUEST_TIMEOUT_S

if TYPE_CHECKING:
    from .client import AsyncConvexClient

_KEPT = (DEAD_SUFFIX, DAMAGED_SUFFIX)


@dataclass(slots=True)
class ErasedHere:
    """What was found of a student in one directory.

    Attributes:
        deleted: runs of which nothing is left here.
        held: runs that live, or that somebody is just delivering: whoever holds them deletes them
            when Convex answers their next records.
        beside: files that the app kept beside the journals (beside.py); they are gone.
    """

    deleted: int = 0
    held: int = 0
    beside: int = 0


def erase_journals(directory: Path | str, *, student_id: str, deployment: str) -> ErasedHere:
    """Delete a student's journals that nobody holds, and what was kept of others and beside them.

    Blocks for as long as the disk does: for a command line. Repeatable.

    Args:
        directory: where the journals lie.
        deployment: the URL as the journals name it. Those that name none belong to it too.

    Raises:
        OSError: the disk refused; what was not deleted is as it was.
    """
    # As `SessionIdentity.subject` has it.
    report = ErasedHere(beside=erase_beside(directory, subject=f"student:{student_id}"))

    def theirs(header: Header | None) -> bool:
        return (
            header is not None
            and header.student_id == student_id
            and header.deployment in ("", deployment)
        )

    for path in sorted(Path(directory).glob(f"*{SUFFIX}")):
        try:
            journal = Journal.adopt(path)
        except JournalLockedError:
            report.held += theirs(_header_of(path))
            continue
        except OutboxError:
            continue  # whose it is, nobody can tell
        try:
            if theirs(journal.header):
                journal.erase()
                report.deleted += 1
        finally:
            journal.close()
    for path, header in _kept_alone(Path(directory)):
        if theirs(header) and _remove(path):
            report.deleted += 1
    return report


async def ask_about_kept(
    directory: Path, speaking_for: Callable[[Header], AsyncConvexClient | None]
) -> int:
    """Delete what was kept of runs whose student was erased meanwhile; return how many files.

    Records that were refused, and damaged journals, stay for their operator when everything else
    of their run is delivered. Nothing is sent for them any more, so Convex is asked.

    Args:
        speaking_for: a client for the student of a header; None where it is not this one's.
    """
    deleted = 0
    for path, header in _kept_alone(directory):
        client = speaking_for(header)
        if client is None:
            continue
        args = {"version": header.record_version, "runId": header.run_id, "records": []}
        try:
            await client.mutation(RECORD, args, timeout_s=REQUEST_TIMEOUT_S)
        except FunctionError as error:
            if error.code == ERASED and _remove(path):
                deleted += 1
                erase_beside(directory, subject=header.subject)
                about = {"run_id": header.run_id, "session_key": header.session_key}
                logger.warning("outbox.journal_erased", extra={"path": path.name, **about})
        except ConvexClientError:
            break
        finally:
            await client.aclose()
    return deleted


def _kept_alone(directory: Path) -> Iterator[tuple[Path, Header]]:
    """The dead files and damaged journals of runs that have no other journal here."""
    for path in sorted(directory.glob("*")):
        if path.suffix not in _KEPT or path.with_suffix(SUFFIX).exists():
            continue
        if (header := _header_of(path)) is not None:
            yield path, header


def _header_of(path: Path) -> Header | None:
    """Whose it is; None if it is gone, or nobody can tell."""
    try:
        return read_header(path)
    except (OutboxError, FileNotFoundError):
        return None


def _remove(path: Path) -> bool:
    """Whether the file was removed: not while somebody sends from it."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
