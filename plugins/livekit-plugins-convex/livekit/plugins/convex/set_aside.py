"""Records that were set aside, sent again: as they are, mended by hand, or cut to fit."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from .beside import erase_beside
from .errors import (
    ConvexClientError,
    EncodingError,
    FunctionError,
    JournalLockedError,
    OutboxError,
)
from .inspection import parse_dead
from .journal import DEAD_SUFFIX, SUFFIX, Header, Journal, decode_line
from .limits import PERMANENT_CODES
from .sender import DEPLOY, REQUEST_TIMEOUT_S, Caller

REPLACE = "sessions:replace"

# More fields than any record of ours has; each cut takes a request.
MAX_CUTS = 32

_CUTTABLE = frozenset({"text_too_long", "field_too_long", "too_many_items"})
_REMEDIES: Final = {
    "not_found": "Convex has no word yet that it was set aside: deliver its journal first",
    "unauthenticated": "check that the deployment's AGENT_JWKS and AGENT_JWT_ISSUER are this key's",
    "forbidden": "its run is bound to another student, or the key may not record",
    "version_unsupported": DEPLOY,
}


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of one record.

    Attributes:
        outcome: `taken`: Convex has it now, or had it already. `erased`: its student was erased,
            and it is gone here too. `refused`: for good, again. `held`: nothing was said about it.
        reason: a stable name: a `ConvexError` code or the type of the error.
        cut: paths of the fields that were cut to fit.
    """

    seq: int
    outcome: Literal["taken", "erased", "refused", "held"]
    reason: str | None = None
    field: str | None = None
    remedy: str | None = None
    cut: tuple[str, ...] = ()


class SetAside:
    """The dead file of one run, taken: nobody else sends from it or adds to it meanwhile.

    Attributes:
        header: whose records they are.
        entries: by `seq`; each has `code`, `field`, `at`, `record`.
    """

    def __init__(
        self, path: Path, fd: int, journal: Journal | None, header: Header, entries: dict[int, Any]
    ) -> None:
        self.path = path
        self.header = header
        self.entries: dict[int, dict[str, Any]] = entries
        self._fd = fd
        self._journal = journal

    @classmethod
    def take(cls, directory: Path, run_id: str) -> SetAside:
        """The records of that run that were set aside.

        Raises:
            JournalLockedError: its run still records, or somebody is at it.
            OutboxError: there are none, or nobody can tell whose they are.
            OSError: the file cannot be read or written.
        """
        path = directory / f"{run_id}{DEAD_SUFFIX}"
        journal = _unheld(directory / f"{run_id}{SUFFIX}")
        try:
            try:
                fd = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                raise OutboxError(f"no record of the run {run_id} was set aside here") from None
            try:
                _lock(fd, path)
                header, entries = parse_dead(path.read_bytes())
                if header is None:
                    raise OutboxError(f"{path.name} has no header that can be read")
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            if journal is not None:
                journal.close()
            raise
        return cls(path, fd, journal, header, entries)

    def close(self) -> None:
        """Give the file up. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> SetAside:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def retry(
        self,
        client: Caller,
        seq: int,
        *,
        record: dict[str, Any] | None = None,
        truncate: bool = False,
    ) -> Retried:
        """Send one record to `sessions:replace`, and take it out of the file when it is taken.

        May be called again: a record that Convex has is not folded twice.

        Args:
            client: speaks for the student of the header.
            record: sent in its place, as JSON; its `seq` and `kind` are filled in.
            truncate: cut what is too long to what Convex says fits, and try again.

        Raises:
            OSError: it was taken, and the file could not be written.
        """
        buried = self.entries[seq]["record"]
        mended = buried if record is None else record
        mended = {**mended, "seq": seq, "kind": buried.get("kind")}
        cut: list[str] = []
        while True:
            tried, limit = await self._send(client, seq, mended)
            if tried.outcome in ("taken", "erased"):
                self._remove(seq)
            if tried.outcome == "erased":
                erase_beside(self.path.parent, subject=self.header.subject)
            shorter = _cut(mended, tried, limit) if truncate and len(cut) < MAX_CUTS else None
            if shorter is None or tried.field is None:
                return replace(tried, cut=tuple(dict.fromkeys(cut)))
            cut.append(tried.field)
            mended = shorter

    async def _send(
        self, client: Caller, seq: int, record: dict[str, Any]
    ) -> tuple[Retried, int | None]:
        """What came of one call, and the limit that a refusal names."""
        args = {
            "version": self.header.record_version,
            "runId": self.header.run_id,
            "seq": seq,
            "record": record,
        }
        try:
            await client.mutation(REPLACE, args, timeout_s=REQUEST_TIMEOUT_S)
        except FunctionError as error:
            return _thrown(seq, error)
        except EncodingError as error:
            remedy = f"mend {error.path.removeprefix('args.record.')}"
            return Retried(seq, "refused", type(error).__name__, error.path, remedy), None
        except ConvexClientError as error:
            remedy = "try again" if error.retryable else str(error)
            return Retried(seq, "held", type(error).__name__, remedy=remedy), None
        return Retried(seq, "taken"), None

    def _remove(self, seq: int) -> None:
        """Write the file anew without that record; nothing else of it is lost."""
        del self.entries[seq]
        if not self.entries:
            self.path.unlink()
            return
        kept = [line for line in self.path.read_bytes().splitlines() if _seq_of(line) != seq]
        # Under this name a sweep removes it where we die in the middle.
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with os.fdopen(os.dup(fd), "wb") as copy:
                copy.write(b"".join(line + b"\n" for line in kept))
                copy.flush()
                os.fsync(copy.fileno())
            temporary.rename(self.path)
        except BaseException:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            raise
        old, self._fd = self._fd, fd
        os.close(old)


def _unheld(path: Path) -> Journal | None:
    """The run's journal, locked, if there is one: its owner writes into the dead file too."""
    if not path.exists():
        return None
    try:
        return Journal.adopt(path)
    except JournalLockedError:
        if not path.exists():
            return None  # delivered meanwhile
        raise JournalLockedError(
            f"the run {path.stem} is held by a running worker; try again when it has ended"
        ) from None
    except OutboxError:
        return None  # of a journal that nobody can read there is no owner


def _lock(fd: int, path: Path) -> None:
    taken = JournalLockedError(f"{path.name} is being retried by another process")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino != path.stat().st_ino:
            raise taken
    except (BlockingIOError, FileNotFoundError):
        raise taken from None


def _seq_of(line: bytes) -> int | None:
    """Of an entry's line; None for the header, and for what cannot be read: both are kept."""
    payload = decode_line(line)
    if payload is None:
        return None
    _, entries = parse_dead(line)
    return next(iter(entries), None)


def _thrown(seq: int, error: FunctionError) -> tuple[Retried, int | None]:
    data = error.data if isinstance(error.data, dict) else {}
    told = data.get("field")
    field = told if isinstance(told, str) else None
    if error.code == "erased":
        return Retried(seq, "erased"), None
    if error.code in PERMANENT_CODES or error.code == "invalid_value":
        limit = data.get("limit")
        refused = Retried(seq, "refused", error.code, field, _how_to_mend(error.code, field))
        return refused, int(limit) if isinstance(limit, (int, float)) else None
    remedy = _REMEDIES.get(error.code, str(error)) if error.code else f"{error}; {DEPLOY}"
    return Retried(seq, "held", error.code or "FunctionError", field, remedy), None


def _how_to_mend(code: str, field: str | None) -> str:
    where = field or "it"
    return (
        f"cut {where} to fit, or mend it by hand" if code in _CUTTABLE else f"mend {where} by hand"
    )


_STEP = re.compile(r"([A-Za-z0-9_]+)|\[(\d+)\]")


def _cut(record: dict[str, Any], refused: Retried, limit: int | None) -> dict[str, Any] | None:
    """The record with the refused field cut to its limit; None if that is no help."""
    if refused.reason not in _CUTTABLE or refused.field is None or limit is None:
        return None

    def shorter(value: object) -> object:
        if isinstance(value, str):
            return value.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
        return value[:limit] if isinstance(value, list) else value

    steps = [int(m[2]) if m[2] else m[1] for m in _STEP.finditer(refused.field)]
    try:
        mended: dict[str, Any] = _changed(record, steps, shorter)
    except (KeyError, IndexError, TypeError, AttributeError):
        return None  # a field that the record does not have
    return None if mended == record else mended


def _changed(value: Any, steps: list[Any], change: Callable[[object], object]) -> Any:
    if not steps:
        return change(value)
    copy = value.copy()
    copy[steps[0]] = _changed(value[steps[0]], steps[1:], change)
    return copy
