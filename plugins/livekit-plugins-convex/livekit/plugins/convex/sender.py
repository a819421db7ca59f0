"""Sending one journal: the next batch, what Convex says to it, and where to go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from .beside import erase_beside
from .encoding import encode
from .errors import ConvexClientError, FunctionError, RequestTimeoutError
from .journal import Confirmed, Journal
from .limits import ERASED, MAX_INSTANT_MS, MIN_INSTANT_MS, PERMANENT_CODES
from .log import logger
from .outbox import Outbox
from .reader import Entry, JournalReader, Position
from .records import SetAsideRecord
from .values import JsonArgs

RECORD = "sessions:record"

REQUEST_TIMEOUT_S = 10.0
# A backend slower than the deadline is still served: the deadline grows with each miss.
MAX_REQUEST_TIMEOUT_S = 120.0
# A server that asks over and over for another place cannot be helped by more haste.
MAX_SEEKS = 3

DEPLOY = "deploy the functions this worker was written for (`npx convex deploy`)"
_REMEDIES = {
    "version_unsupported": DEPLOY,
    "unauthenticated": "check that the deployment's AGENT_JWKS and AGENT_JWT_ISSUER are this key's",
    "forbidden": "this run is bound to another student, or the key may not record",
}


class Caller(Protocol):
    """What a delivery needs of `AsyncConvexClient`, already speaking for the journal's student."""

    async def mutation(
        self,
        function: str,
        args: Mapping[str, object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Any: ...

    async def query(
        self,
        function: str,
        args: Mapping[str, object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class Held:
    """Why the last batch was not taken. Nothing is lost: it is sent again.

    Attributes:
        reason: a stable name: a `ConvexError` code or the type of the error.
        unreachable: it says nothing about this journal: Convex was busy or out of reach.
    """

    reason: str
    unreachable: bool
    retry_after_s: float | None = None
    remedy: str | None = None


class Sender:
    """Sends one journal in order, at most 64 records or 512 KiB at a time.

    Reads each batch from the journal when it is sent: a backlog costs disk and no memory. At least
    once; `sessions:record` skips what it already has. Not for concurrent use: one batch in flight.

    Args:
        journal: open and locked by this process.
        client: speaks for the student of the journal's header.
        outbox: the writing end, if the run is alive.
        clock: Unix seconds.

    Attributes:
        delivered: records confirmed by Convex since this sender began, set-aside ones left out.
        held: why nothing gets through at the moment; None if it does.
        erased: the student was erased, and with them everything of the run here.
    """

    def __init__(
        self,
        journal: Journal,
        client: Caller,
        *,
        outbox: Outbox | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.journal = journal
        self.delivered = 0
        self.held: Held | None = None
        self.erased = False
        self.on_progress: Callable[[], None] | None = None
        self._client = client
        self._outbox = outbox
        self._clock = clock
        self._reader = JournalReader(journal)
        self._set_aside = journal.dead()
        self._keep = False
        self._position = self._reader.start()
        self._ended = False
        self._seeks = 0
        self._timeout_s = REQUEST_TIMEOUT_S
        if (confirmed := journal.confirmed()) is not None:
            self._position = Position(confirmed.offset, confirmed.seq + 1)
            self._ended = confirmed.ended
            self._keep = confirmed.keep

    @property
    def pending(self) -> int:
        """Records of a live run that Convex has not confirmed."""
        if self._outbox is None or self.erased:
            return 0
        return max(0, self._outbox.next_seq - self._position.seq)

    @property
    def ended(self) -> bool:
        """Convex has the record that ends the run."""
        return self._ended

    @property
    def next_seq(self) -> int:
        """The `seq` after the last that Convex has confirmed."""
        return self._position.seq

    @property
    def set_aside(self) -> int:
        """Records of this journal that Convex refused for good."""
        return len(self._set_aside)

    async def drain(self) -> Held | None:
        """Send batches until nothing is left (None) or one is not taken (why)."""
        while not self.erased:
            try:
                batch = self._read()
                held = await self._send(batch) if batch else None
            except OSError as error:
                batch, held = [], Held(type(error).__name__, unreachable=False)
            if held is not None:
                self._note(held)
                return held
            if not batch:
                return None
        return None

    def finish(self) -> bool:
        """Delete the journal if its run has ended and Convex has all of it; whether it is done.

        A journal with unreadable lines, or with refused records that could not be put into the
        dead file, is kept under another name. Where the disk lets neither be done it stays, and
        recovery tries again.
        """
        if self.erased:
            return True
        if not self._ended or self.pending or (self._outbox and not self._outbox.closed):
            return False
        try:
            if self._must_keep:
                kept = self.journal.keep_damaged()
                logger.error(
                    "outbox.journal_kept",
                    extra=self.about(path=kept.name, damaged_lines=self._reader.damaged),
                )
            else:
                self.journal.delete()
        except OSError as error:
            logger.error("outbox.journal_stays", extra=self.about(error=error.strerror))
            return False
        return True

    @property
    def _must_keep(self) -> bool:
        return self._keep or self._reader.damaged > 0

    def about(self, **more: object) -> dict[str, object]:
        """The keys of a log line about this journal."""
        header = self.journal.header
        known = {
            "function": RECORD,
            "run_id": header.run_id,
            "session_key": header.session_key,
            "pending": self.pending,
        }
        return known | {key: value for key, value in more.items() if value is not None}

    def _read(self) -> list[Entry]:
        outbox = self._outbox
        return self._reader.read(
            self._position,
            tail=None if outbox is None else outbox.tail(),
            final=outbox is None or outbox.closed,
        )

    async def _send(self, batch: list[Entry]) -> Held | None:
        args = JsonArgs(
            version=self.journal.header.record_version,
            runId=self.journal.header.run_id,
            records=[self._tombstone(entry) or entry.record for entry in batch],
        )
        try:
            reply = await self._client.mutation(RECORD, args, timeout_s=self._timeout_s)
        except FunctionError as error:
            return self._refused(error, batch)
        except ConvexClientError as error:
            return self._unreached(error)
        except Exception as error:  # noqa: BLE001  a delivery outlives whatever a client raises
            return Held(type(error).__name__, unreachable=False)
        return self._answered(reply, batch)

    def _answered(self, reply: Any, batch: list[Entry]) -> Held | None:
        folded = reply.get("seq") if isinstance(reply, dict) else None
        if not isinstance(folded, (int, float)) or isinstance(folded, bool):
            return Held("UnexpectedReply", unreachable=False, remedy=DEPLOY)
        last = batch[-1]
        if folded < last.seq:
            return self._seek(int(folded) + 1)
        self.delivered += sum(
            entry.seq not in self._set_aside and entry.kind != "lost" for entry in batch
        )
        self._seeks = 0
        self._timeout_s = max(REQUEST_TIMEOUT_S, self._timeout_s * 0.9)
        self._ended = self._ended or any(entry.kind == "runEnded" for entry in batch)
        self._position = last.after
        if self._outbox is not None:
            self._outbox.forget(last.seq)
        # `keep` too: whoever goes on from here does not see what lies before.
        self.journal.confirm(
            Confirmed(seq=last.seq, offset=last.offset, ended=self._ended, keep=self._must_keep)
        )
        self._note(None)
        if self.on_progress is not None:
            self.on_progress()
        return None

    def _refused(self, error: FunctionError, batch: list[Entry]) -> Held | None:
        data = error.data if isinstance(error.data, dict) else {}
        if error.code == "gap" and isinstance(expected := data.get("expected"), (int, float)):
            return self._seek(int(expected))
        if error.code == ERASED:
            self._erase()
            return None
        if error.code in PERMANENT_CODES:
            refused = next((entry for entry in batch if entry.seq == data.get("seq")), None)
            if refused is not None and refused.seq not in self._set_aside:
                self._put_aside(refused, error.code, data.get("field"))
                return None
        # A crash in the function, an argument its validator does not know, a function that is not
        # there: a repaired deployment must find everything still here.
        remedy = _REMEDIES.get(error.code) if error.code else str(error)
        return Held(error.code or "FunctionError", unreachable=False, remedy=remedy)

    def _unreached(self, error: ConvexClientError) -> Held:
        if isinstance(error, RequestTimeoutError):
            self._timeout_s = min(MAX_REQUEST_TIMEOUT_S, self._timeout_s * 2)
        return Held(
            type(error).__name__,
            unreachable=error.retryable,
            retry_after_s=error.retry_after_s,
            remedy=None if error.retryable else str(error),
        )

    def _seek(self, seq: int) -> Held | None:
        """Go on where Convex says it is, forwards or back."""
        self._seeks += 1
        if self._seeks > MAX_SEEKS or seq < 0:
            return Held("gap", unreachable=False)
        logger.info("outbox.gap", extra=self.about(expected=seq))
        offset = self._position.offset if seq >= self._position.seq else self.journal.body_offset
        self._position = Position(offset, seq)
        return None

    def _erase(self) -> None:
        """Leave nothing of the run here. A live one goes on, and its records are dropped.

        Raises:
            OSError: the disk refused; the journal will be sent again, and go then.
        """
        about = self.about()
        erase_beside(self.journal.path.parent, subject=self.journal.header.subject)
        if self._outbox is not None:
            self._outbox.erase()
        self.journal.erase()
        self.erased = True
        self.held = None
        logger.warning("outbox.journal_erased", extra=about)
        if self.on_progress is not None:
            self.on_progress()

    def _put_aside(self, entry: Entry, code: str, field: object) -> None:
        told = field if isinstance(field, str) else None
        buried = {"seq": entry.seq, "code": code, "field": told, "at": self._clock() * 1000}
        try:
            self.journal.bury({**buried, "record": entry.record})
        except OSError:
            # The journal itself has the record: it will be kept.
            self._keep = True
        self._set_aside[entry.seq] = buried
        logger.error(
            "outbox.record_set_aside",
            extra=self.about(seq=entry.seq, kind=entry.kind, code=code, field=told),
        )

    def _tombstone(self, entry: Entry) -> dict[str, Any] | None:
        refused = self._set_aside.get(entry.seq)
        if refused is None:
            return None
        created_at_ms = entry.record.get("createdAt")
        if not isinstance(created_at_ms, (int, float)) or not (
            MIN_INSTANT_MS <= created_at_ms <= MAX_INSTANT_MS
        ):
            created_at_ms = refused["at"]
        tombstone = SetAsideRecord(
            created_at=created_at_ms / 1000,
            code=refused["code"],
            of_kind=entry.kind,
            field=refused["field"],
        )
        return {"seq": entry.seq, **msgspec.json.decode(encode(tombstone)[0])}

    def _note(self, held: Held | None) -> None:
        """One line when it stops getting through, one when it does again, none in between."""
        before, self.held = self.held, held
        if held is None:
            if before is not None:
                logger.info("outbox.delivery_resumed", extra=self.about())
        elif before is None or before.reason != held.reason:
            logger.warning(
                "outbox.delivery_delayed" if held.unreachable else "outbox.delivery_held",
                extra=self.about(error=held.reason, remedy=held.remedy),
            )
