"""What an outbox directory is like: whether it is there, private, local, and has room."""

from __future__ import annotations

import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from .directory import why_unusable

# A lock on these does not end with its owner, or says nothing to other machines; and a write may
# wait for the network, in the middle of a lesson.
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    }
)
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class DirectoryReport:
    """What an outbox directory is like.

    Attributes:
        exists: else the other fields tell of the directory in which it would be made.
        problem: why it cannot be used; None if it can, or is not there.
        open_to_others: another user of this machine may look into it.
        free_bytes: for this user.
        file_system: its type as Linux calls it; None where that is not known.
    """

    path: Path
    exists: bool
    problem: str | None
    open_to_others: bool
    free_bytes: int
    file_system: str | None

    @property
    def on_network(self) -> bool:
        return self.file_system in NETWORK_FILE_SYSTEMS


def look_at_directory(path: Path) -> DirectoryReport:
    """Look, and do once in it what a journal needs. Makes no directory.

    Raises:
        OSError: not even its file system can be asked.
    """
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    exists = there == path
    return DirectoryReport(
        path=path,
        exists=exists,
        problem=why_unusable(path) if exists else None,
        open_to_others=exists and stat.S_IMODE(path.stat().st_mode) & 0o077 != 0,
        free_bytes=shutil.disk_usage(there).free,
        file_system=file_system(there),
    )


def file_system(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The type of the file system that holds `path`; None if nobody says."""
    try:
        table = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    resolved, best, found = path.resolve(), -1, None
    for line in table:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = Path(_ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), fields[4]))
        depth = len(point.parts)
        # Of two at one place the later covers the earlier.
        if depth >= best and resolved.is_relative_to(point):
            best, found = depth, after.split(" ", 1)[0]
    return found
