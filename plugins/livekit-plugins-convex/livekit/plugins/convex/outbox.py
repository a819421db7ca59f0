"""The outbox of one run: what a session records is on disk when `append` returns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

from .encoding import Mended, encode
from .errors import ErasedError, OutboxError, OutboxFullError
from .journal import Header, Journal
from .log import logger
from .records import LostRecord, Record, RunEndedRecord, SessionEndedRecord, kind_of

DEFAULT_MAX_BYTES = 256 * 1024 * 1024
# What is kept in memory while the disk takes nothing: some hundred turns.
DEFAULT_MAX_TAIL_BYTES = 1024 * 1024
# A full journal still takes the records that say how it ended.
_RESERVE_BYTES = 16 * 1024
_LAST_WORDS = (SessionEndedRecord, RunEndedRecord)


class Outbox:
    """The writing end of a run's journal.

    One owner, one thread: LiveKit's listeners and the delivery share the event loop. An append is
    one `os.write`. What the kernel has, the death of the process cannot take; what the last second
    before a power cut wrote, it can.

    A disk that refuses (full, failing) does not stop a lesson: records then wait in memory, in
    order, and are delivered from there; they go to disk as soon as it takes them. Only when that
    memory is full is a record lost. It is counted, and announced in its place by a `lost` record.

    Args:
        journal: open and locked.
        max_bytes: the most the journal may grow to.
        max_tail_bytes: the most that may wait in memory.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_tail_bytes: int = DEFAULT_MAX_TAIL_BYTES,
    ) -> None:
        self.journal = journal
        self.on_append: Callable[[float], None] | None = None
        self.lost = 0
        self.dropped = 0
        self._max_bytes = max_bytes
        self._max_tail_bytes = max_tail_bytes
        self._next_seq = 0
        self._unannounced = 0
        self._tail: deque[tuple[int, bytes]] = deque()
        self._tail_bytes = 0
        self._refused = False
        self._closed = False
        self._erased = False

    @classmethod
    def open(
        cls,
        directory: Path,
        header: Header,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_tail_bytes: int = DEFAULT_MAX_TAIL_BYTES,
    ) -> Outbox:
        """The outbox of a new run, with a journal of its own in `directory`.

        Raises:
            OutboxError: the directory cannot be used; it says why and what to do.
        """
        journal = Journal.create(directory, header)
        return cls(journal, max_bytes=max_bytes, max_tail_bytes=max_tail_bytes)

    @property
    def next_seq(self) -> int:
        """The `seq` of the next record; the number of records taken so far."""
        return self._next_seq

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def waiting_in_memory(self) -> int:
        """Records that the disk has not taken yet."""
        return len(self._tail)

    def append(self, record: Record) -> int:
        """Store one record of this run; return its `seq` once it is on disk.

        Synchronous on purpose: it runs inside LiveKit's listeners, costs microseconds (one write)
        and never waits for the network. Delivery comes later, in `seq` order, at least once;
        `sessions:record` skips what it already has.

        Args:
            record: `created_at` in Unix seconds. Too long a text is cut, and a warning names the
                field (encoding.py).

        Raises:
            RecordError: the record cannot be encoded. Nothing was stored.
            OutboxFullError: `max_bytes` is reached, or the disk refuses and the memory tail is
                full. Nothing was stored; the loss is counted and announced in the journal.
            ErasedError: after `erase`. Nothing was stored; `dropped` counts it.
            OutboxError: closed, or called in a forked child. Nothing was stored.
        """
        if self._erased:
            self.dropped += 1
            raise ErasedError("the student of this run was erased; nothing more of it is kept")
        if self._closed:
            raise OutboxError("this run has ended; its outbox takes no more records")
        payload, mended = encode(record)
        if mended:
            _warn(record, mended)
        seq = self._next_seq
        if self._unannounced or self._tail:
            seq = self._append_after_trouble(record, payload)
        else:
            self._take([(seq, numbered_line(seq, payload))], record)
        self._next_seq = seq + 1
        if self.on_append is not None:
            self.on_append(record.deliver_within_s)
        return seq

    def _append_after_trouble(self, record: Record, payload: bytes) -> int:
        """Announce what was lost in its place, then the record: both are stored, or neither."""
        lines = []
        seq = self._next_seq
        if self._unannounced:
            seq += self._unannounced
            lost = LostRecord(
                created_at=record.created_at,
                from_seq=self._next_seq,
                to_seq=seq - 1,
                reason="outbox_full",
            )
            lines.append((seq - 1, numbered_line(seq - 1, encode(lost)[0])))
        lines.append((seq, numbered_line(seq, payload)))
        self._take(lines, record)
        self._unannounced = 0
        return seq

    def tail(self) -> Iterator[bytes]:
        """The lines that the disk has not taken yet, in order."""
        return iter([line for _, line in self._tail])

    def forget(self, seq: int) -> None:
        """Convex has everything up to `seq`: it need not stay in memory."""
        while self._tail and self._tail[0][0] <= seq:
            self._tail_bytes -= len(self._tail.popleft()[1])

    def write_tail(self) -> bool:
        """Try the disk again; whether nothing waits in memory any more."""
        while self._tail:
            if not self._write(self._tail[0][1]):
                return False
            self._tail_bytes -= len(self._tail.popleft()[1])
        return True

    def erase(self) -> None:
        """Keep nothing of this run any more: what waits in memory goes, what comes is dropped."""
        self._erased = True
        self._tail.clear()
        self._tail_bytes = 0
        self._unannounced = 0

    def close(self) -> None:
        """Take no more records; the journal stays open for its delivery. May be called twice."""
        if not self._closed:
            self._closed = True
            self.write_tail()

    def _take(self, lines: list[tuple[int, bytes]], record: Record) -> None:
        # One write for all of them: either they are on disk or none is.
        data = lines[0][1] if len(lines) == 1 else b"".join(line for _, line in lines)
        size = len(data)
        reserve = _RESERVE_BYTES if isinstance(record, _LAST_WORDS) else 0
        if self.journal.size + self._tail_bytes + size > self._max_bytes + reserve:
            raise self._full(f"its journal has reached max_bytes ({self._max_bytes})")
        if (not self._tail or self.write_tail()) and self._write(data):
            return
        if self._tail_bytes + size > self._max_tail_bytes + reserve:
            raise self._full("the disk takes nothing and max_tail_bytes is reached")
        self._tail.extend(lines)
        self._tail_bytes += size

    def _write(self, data: bytes) -> bool:
        """Whether the disk took it; one log line when that changes."""
        try:
            self.journal.append(data)
        except OSError as error:
            if not self._refused:
                self._refused = True
                logger.error(
                    "outbox.disk_refuses", extra={"error": error.strerror, **self._about()}
                )
            return False
        if self._refused:
            self._refused = False
            logger.info("outbox.disk_accepts_again", extra=self._about())
        return True

    def _full(self, why: str) -> OutboxFullError:
        self._unannounced += 1
        self.lost += 1
        if self._unannounced == 1:
            logger.error("outbox.full", extra={"lost": self.lost, "error": why, **self._about()})
        return OutboxFullError(f"the outbox of run {self.journal.header.run_id} is full: {why}")

    def _about(self) -> dict[str, object]:
        return {"run_id": self.journal.header.run_id, "pending": len(self._tail)}


def _warn(record: Record, mended: list[Mended]) -> None:
    for field in mended:
        logger.warning(
            "outbox.record_mended",
            extra={"kind": kind_of(record), "field": field.field, "how": field.how},
        )


def numbered_line(seq: int, payload: bytes) -> bytes:
    """The journal's line of an encoded record, which gets its `seq` here."""
    numbered = b'{"seq":%d,%b' % (seq, payload[1:])
    return b"%08x %b\n" % (crc32(numbered), numbered)
