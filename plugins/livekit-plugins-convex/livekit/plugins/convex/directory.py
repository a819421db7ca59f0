"""Whether an outbox directory can be used: found out before the first lesson, not in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from pathlib import Path

from .errors import OutboxError

# A journal's beginning: on a full disk, small files still find room between blocks.
_PROBE_BYTES = 65_536


def check_directory(directory: Path | str) -> None:
    """Make the directory if it is missing, and do once in it what a journal needs.

    Blocks for as long as the disk does: for the start of a worker.

    Raises:
        OutboxError: it is missing and cannot be made, is no directory, read-only, another user's,
            full, or on a file system without locks; the error says which, and what to do.
    """
    why = why_unusable(Path(directory))
    if why is not None:
        raise OutboxError(
            f"the outbox directory {directory} cannot be used: {why}; give the recorder a "
            "directory on a local disk that this user may write (outbox_dir)"
        )


def why_unusable(directory: Path) -> str | None:
    """As `check_directory`: what is wrong with the directory, or None."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # As a journal before it has its name, so that recovery removes what a crash leaves here.
        probe = directory / f".{uuid.uuid4().hex}.tmp"
        fd = os.open(probe, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.write(fd, bytes(_PROBE_BYTES)) != _PROBE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
            with contextlib.suppress(OSError):
                probe.unlink()
    except OSError as error:
        return _reason(directory, error)
    return None


def _reason(directory: Path, error: OSError) -> str:
    match error.errno:
        case errno.EACCES | errno.EPERM:
            owner = _owner(directory)
            if owner is not None and owner != os.geteuid():
                return f"it belongs to user {owner}, and this process is user {os.geteuid()}"
            return "it is not writable"
        case errno.EROFS:
            return "its file system is read-only"
        case errno.ENOSPC | errno.EDQUOT:
            return "its disk is full"
        case errno.EEXIST | errno.ENOTDIR:
            return "it is no directory, or lies under a file"
        case errno.ENOLCK | errno.EOPNOTSUPP:
            return "its file system has no locks (flock), as some network file systems"
        case _:
            return error.strerror or type(error).__name__


def _owner(directory: Path) -> int | None:
    """Whose the directory is, or the nearest one above it that can be seen."""
    for path in (directory, *directory.parents):
        with contextlib.suppress(OSError):
            return path.stat().st_uid
    return None
