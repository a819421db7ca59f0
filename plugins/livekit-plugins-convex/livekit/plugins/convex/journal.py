"""The journal of one run: an append-only file that one process owns at a time.

    <run id>.journal     the header line, then one line per record
    <run id>.confirmed   up to where Convex has confirmed; losing it costs a repeat
    <run id>.dead        records that Convex refused for good, each with its reason
    <run id>.damaged     a journal with unreadable lines, kept after what was readable was delivered

A line is the CRC-32 of its JSON in eight hex digits, a space, the JSON, and a line end:

    3f1c09aa {"seq":4,"kind":"message","createdAt":1795474184970.8, ...}

Ownership is a `flock` on the open file: it ends with the process, however it ends. Never `lockf`,
whose lock any other descriptor of the file releases when closed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from .encoding import wire_name
from .errors import JournalLockedError, OutboxError
from .limits import MAX_RECORD_BYTES
from .log import logger

FORMAT = 1
SUFFIX = ".journal"
CONFIRMED_SUFFIX = ".confirmed"
DEAD_SUFFIX = ".dead"
DAMAGED_SUFFIX = ".damaged"

# No line this version writes is longer; what is longer is damage, and is not read into memory.
MAX_LINE_BYTES = 2 * MAX_RECORD_BYTES
_CHUNK_BYTES = 65_536
# What is read at first of a journal's head: most headers are some hundred bytes.
_HEAD_BYTES = 2_048
# One fixed size, so that an update is a single write within one block.
_CONFIRMED_BYTES = 96
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Header(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire_name,
    tag_field="kind",
    tag="journal",
):
    """The first line: what a delivery needs to know, whichever process makes it.

    Attributes:
        deployment: URL of the Convex deployment this run belongs to; "" if it was not known, and
            then the run belongs to whichever deployment the worker that recovers it has.
        started_at_ms: wall clock at the start, the base of the run's instants.
        steady_at_ms: the steady clock at that moment, which tells how far the wall clock jumped.
    """

    format: int
    record_version: int
    run_id: str
    session_key: str
    subject: str
    deployment: str
    started_at_ms: float
    steady_at_ms: float
    student_id: str | None = None


class Confirmed(msgspec.Struct, frozen=True, kw_only=True):
    """Convex has everything up to `seq`; the next line begins at `offset`.

    Attributes:
        keep: something before `offset` is nowhere else: the journal is not to be deleted.
    """

    seq: int
    offset: int
    ended: bool = False
    keep: bool = False


def encode_line(payload: bytes) -> bytes:
    """The line of a JSON text that holds no line end."""
    return b"%08x %b\n" % (crc32(payload), payload)


def decode_line(line: bytes) -> bytes | None:
    """The JSON text of a line without its line end; None if a bit of it has changed."""
    if len(line) < 11 or line[8:9] != b" ":
        return None
    payload = line[9:]
    return payload if line[:8] == b"%08x" % crc32(payload) else None


def default_directory(environ: Mapping[str, str] | None = None) -> Path:
    """`CONVEX_OUTBOX_DIR`, else a directory of this plugin under the user's state directory."""
    env = os.environ if environ is None else environ
    if chosen := env.get("CONVEX_OUTBOX_DIR", "").strip():
        return Path(chosen).expanduser()
    state = env.get("XDG_STATE_HOME", "").strip() or "~/.local/state"
    return Path(state).expanduser() / "livekit-plugins-convex" / "outbox"


class Journal:
    """An open journal that this process has locked. Not for use from several threads.

    Every method blocks for as long as the disk does; on a local disk that is microseconds, but for
    `sync`.

    Attributes:
        body_offset: where the first record begins.
        size: bytes written, as far as this process knows.
        durable: it outlives this process.
    """

    def __init__(
        self, path: Path, fd: int, header: Header, *, body_offset: int, durable: bool = True
    ) -> None:
        self.path = path
        self.header = header
        self.body_offset = body_offset
        self.durable = durable
        self.size = os.fstat(fd).st_size
        self._fd = fd
        self._pid = os.getpid()
        self._torn = False
        self._begun_here = False
        self._confirmed_fd: int | None = None
        _OPEN.add(self)

    @classmethod
    def create(cls, directory: Path, header: Header) -> Journal:
        """A new journal, locked and named only when its header is in it.

        Raises:
            OutboxError: the directory cannot be made or written, or the header is none that can
                be; it says why and what to do.
        """
        if not _RUN_ID.fullmatch(header.run_id):
            raise OutboxError("a run id is 1 to 128 letters, digits, '-' or '_'")
        line = _header_line(header)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = directory / f".{header.run_id}.tmp"
            fd = os.open(temporary, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.write(fd, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                path = directory / f"{header.run_id}{SUFFIX}"
                temporary.rename(path)
            except BaseException:
                os.close(fd)
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
        except OSError as error:
            raise OutboxError(
                f"the outbox directory {directory} cannot be used: {error.strerror}; give the "
                "recorder a directory on a local disk that this user may write (outbox_dir)"
            ) from error
        journal = cls(path, fd, header, body_offset=len(line))
        journal._begun_here = True
        _BEGUN_HERE.add(header.run_id)
        return journal

    @classmethod
    def adopt(cls, path: Path) -> Journal:
        """An existing journal that nobody holds any more.

        Raises:
            JournalLockedError: its owner lives, or another sweep has taken it, or it is gone.
            OutboxError: its header cannot be read, so nobody knows whose it is.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            raise _gone(path) from None
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JournalLockedError(f"{path.name} is held by another process") from None
            _same_file(path, fd)
            header, body_offset = _read_header(path.name, fd)
        except BaseException:
            os.close(fd)
            raise
        journal = cls(path, fd, header, body_offset=body_offset)
        # Its owner may have died in the middle of a line.
        journal._torn = os.pread(fd, 1, journal.size - 1) != b"\n"
        return journal

    @classmethod
    def look(cls, path: Path) -> Journal:
        """An existing journal to read, whoever holds it. It is not locked and cannot be written.

        Raises:
            OutboxError: its header cannot be read.
            OSError: it cannot be opened.
        """
        fd = os.open(path, os.O_RDONLY)
        try:
            header, body_offset = _read_header(path.name, fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, header, body_offset=body_offset)

    @classmethod
    def in_memory(cls, header: Header) -> Journal:
        """A journal that dies with this process, for when the disk cannot be used at all.

        Raises:
            OutboxError: the header is none that can be written.
        """
        line = _header_line(header)
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create(header.run_id)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
        os.write(fd, line)
        # The name of no file: side files cannot be written there either.
        path = Path(os.devnull) / f"{header.run_id}{SUFFIX}"
        return cls(path, fd, header, body_offset=len(line), durable=False)

    def append(self, line: bytes) -> None:
        """Write one line, or nothing.

        Raises:
            OSError: the disk did not take all of it; what it took was cut off again.
            OutboxError: called in a forked child, whose writes would mix with its parent's.
        """
        if os.getpid() != self._pid:
            raise OutboxError("a journal cannot be written from a forked child of its owner")
        # After a fragment that could not be cut off, a line end makes it a line of its own.
        data = b"\n" + line if self._torn else line
        written = os.write(self._fd, data)
        if written == len(data):
            self.size += written
            self._torn = False
            return
        self._cut_off(written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _cut_off(self, written: int) -> None:
        try:
            os.ftruncate(self._fd, self.size)
        except OSError:
            self.size += written
            self._torn = True

    def lines(self, offset: int) -> Iterator[tuple[bytes | None, int]]:
        """Each complete line from `offset` on, without its line end, and where the next begins.

        A line too long to be one is None. A last line without its end comes with the file's own
        end, if it is whole otherwise; a torn one does not come.
        """
        buffer, start, skipping = b"", offset, False
        while chunk := os.pread(self._fd, _CHUNK_BYTES, start + len(buffer)):
            *complete, rest = (buffer + chunk).split(b"\n")
            for line in complete:
                start += len(line) + 1
                yield (None if skipping else line), start
                skipping = False
            if len(rest) > MAX_LINE_BYTES:
                start, rest, skipping = start + len(rest), b"", True
            buffer = rest
        if decode_line(buffer) is not None and not skipping:
            yield buffer, start + len(buffer)

    def confirmed(self) -> Confirmed | None:
        """What the side file says, if it fits this journal."""
        try:
            line = self._side(CONFIRMED_SUFFIX).read_bytes().rstrip(b" \n")
        except OSError:
            return None
        payload = decode_line(line)
        if payload is None:
            return None
        try:
            confirmed = msgspec.json.decode(payload, type=Confirmed)
        except msgspec.DecodeError:
            return None
        if not self.body_offset <= confirmed.offset <= self.size:
            return None
        # A journal may end without a line end: its process died in the middle of a write.
        fits = confirmed.offset == self.size or os.pread(self._fd, 1, confirmed.offset - 1) == b"\n"
        return confirmed if fits else None

    def confirm(self, confirmed: Confirmed) -> None:
        """Write the side file. A failure is ignored: it costs a repeat of what Convex has."""
        line = encode_line(msgspec.json.encode(confirmed)).rstrip(b"\n")
        try:
            if self._confirmed_fd is None:
                side = self._side(CONFIRMED_SUFFIX)
                self._confirmed_fd = os.open(side, os.O_WRONLY | os.O_CREAT, 0o600)
            os.pwrite(self._confirmed_fd, line.ljust(_CONFIRMED_BYTES - 1) + b"\n", 0)
        except OSError as error:
            logger.debug("outbox.confirm_not_written", extra={"error": type(error).__name__})

    def dead(self) -> dict[int, dict[str, Any]]:
        """The entries of the dead file by `seq`; each has `code`, `field`, `at`, `record`."""
        try:
            lines = self._side(DEAD_SUFFIX).read_bytes().split(b"\n")
        except OSError:
            return {}
        entries = (msgspec.json.decode(p) for line in lines if (p := decode_line(line)) is not None)
        return {entry["seq"]: entry for entry in entries if "seq" in entry}

    def bury(self, entry: dict[str, Any]) -> None:
        """Add an entry to the dead file; on disk for good when this returns.

        Raises:
            OSError: it could not be stored.
        """
        side = self._side(DEAD_SUFFIX)
        fd = os.open(side, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            data = encode_line(msgspec.json.encode(entry))
            if os.fstat(fd).st_size == 0:
                data = encode_line(msgspec.json.encode(self.header)) + data
            size = os.fstat(fd).st_size
            if os.write(fd, data) != len(data):
                os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Wait until the disk itself has what was appended; may take long. Thread-safe.

        Does nothing once the journal is closed.

        Raises:
            OSError: the disk failed.
        """
        fd = self._fd
        if fd >= 0:
            os.fsync(fd)

    def delete(self) -> None:
        """Remove the journal and its side file; the dead file stays."""
        # In this order: a journal without its side file is only repeated.
        for path in (self._side(CONFIRMED_SUFFIX), self.path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
        self.close()

    def erase(self) -> None:
        """Remove everything of this run: also what Convex refused, and what was kept as damaged.

        Raises:
            OSError: the disk refused. The journal itself is still there: it may be tried again.
        """
        for suffix in (DEAD_SUFFIX, DAMAGED_SUFFIX, CONFIRMED_SUFFIX, SUFFIX):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._side(suffix).unlink()
        self.close()

    def readdress(self, deployment: str) -> None:
        """Give the journal's records to another deployment, and the journal up.

        What was confirmed is forgotten, since that deployment has none of it.

        Raises:
            OSError: the disk failed; the journal is what it was.
        """
        temporary = self.path.with_name(f".{self.path.stem}.tmp")
        temporary.unlink(missing_ok=True)  # of an earlier attempt: we hold the journal's lock
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as copy, self.path.open("rb") as source:
                fcntl.flock(copy, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # As it was written, also fields that only a newer version knows.
                header = msgspec.json.decode(source.readline().partition(b" ")[2])
                copy.write(encode_line(msgspec.json.encode({**header, "deployment": deployment})))
                shutil.copyfileobj(source, copy)
                copy.flush()
                os.fsync(copy.fileno())
                kept = os.fstat(source.fileno())
                # Sweeps take the oldest first.
                os.utime(copy.fileno(), ns=(kept.st_atime_ns, kept.st_mtime_ns))
                # Before the rename: its offsets are of the old file.
                self._side(CONFIRMED_SUFFIX).unlink(missing_ok=True)
                temporary.rename(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            self.close()

    def keep_damaged(self) -> Path:
        """Take the journal out of delivery but keep its bytes; return where they are."""
        kept = self._side(DAMAGED_SUFFIX)
        self.path.rename(kept)
        with contextlib.suppress(FileNotFoundError):
            self._side(CONFIRMED_SUFFIX).unlink()
        self.close()
        return kept

    def close(self) -> None:
        """Give up the lock. May be called twice."""
        if self._fd >= 0 and os.getpid() == self._pid:
            # Closing would do, unless another thread is in `sync`: that keeps the file, and the
            # lock with it, until the disk has answered.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._let_go()

    def _let_go(self) -> None:
        """Close the files; a lock that another process shares stays."""
        _OPEN.discard(self)
        if self._begun_here:
            _BEGUN_HERE.discard(self.header.run_id)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        side, self._confirmed_fd = self._confirmed_fd, None
        if side is not None:
            os.close(side)

    def _side(self, suffix: str) -> Path:
        return self.path.with_suffix(suffix)


def _header_line(header: Header) -> bytes:
    try:
        return encode_line(msgspec.json.encode(header))
    except (UnicodeEncodeError, TypeError):
        # Without its cause, which quotes the text.
        raise OutboxError(
            "a journal's header takes text and numbers, and no half of a surrogate pair"
        ) from None


def read_header(path: Path) -> Header:
    """The header of the journal at `path`, whoever holds it. Reads 2 KiB of it, seldom more.

    Thread-safe.

    Raises:
        OutboxError: it cannot be read.
        OSError: the file cannot be opened or read.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        return _read_header(path.name, fd)[0]
    finally:
        os.close(fd)


def is_begun_here(run_id: str) -> bool:
    """Whether it is a run that this process began, and whose journal it holds still."""
    return run_id in _BEGUN_HERE


def _read_header(name: str, fd: int) -> tuple[Header, int]:
    """The header of a journal, and where the first record begins."""
    head = os.pread(fd, _HEAD_BYTES, 0)
    if b"\n" not in head and len(head) == _HEAD_BYTES:
        head = os.pread(fd, MAX_LINE_BYTES, 0)
    line = head.partition(b"\n")[0]
    payload = decode_line(line)
    if payload is None:
        raise OutboxError(f"{name} has no readable header")
    try:
        header = msgspec.json.decode(payload, type=Header)
    except msgspec.DecodeError:
        raise OutboxError(f"{name} has a header this version cannot read") from None
    if header.format > FORMAT:
        raise OutboxError(
            f"{name} was written by a newer version (format {header.format}; this one reads "
            f"{FORMAT}): deliver it with that version"
        )
    return header, len(line) + 1


def _same_file(path: Path, fd: int) -> None:
    """A lock is worth nothing if the name has meanwhile gone, or stands for another file."""
    ours = os.fstat(fd)
    try:
        named = path.stat()
    except FileNotFoundError:
        raise _gone(path) from None
    if (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino):
        raise JournalLockedError(f"{path.name} was replaced by another process")


def _gone(path: Path) -> JournalLockedError:
    return JournalLockedError(f"{path.name} is gone: delivered by another process", gone=True)


# A forked child shares its parent's open files, and with them the locks: a child that outlives its
# parent would keep the journal from ever being recovered. So it lets go of them at once.
_OPEN: weakref.WeakSet[Journal] = weakref.WeakSet()
_BEGUN_HERE: set[str] = set()


def _let_go_in_child() -> None:
    for journal in list(_OPEN):
        journal._let_go()


os.register_at_fork(after_in_child=_let_go_in_child)
