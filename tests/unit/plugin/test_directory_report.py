"""What an outbox directory is like, and on what it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from livekit.plugins.convex.directory_report import file_system, look_at_directory

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /srv rw - nfs4 server:/srv rw
31 30 8:2 / /srv/local rw master:1 - xfs /dev/sdb rw
32 22 0:40 / /mnt/two\\040words rw - cifs //host/share rw
33 22 0:41 / /over rw - ext4 /dev/sdc rw
34 33 0:42 / /over rw - fuse.sshfs host: rw
a line of another kind
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS)
    return path


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib/emma", "ext4"),
        ("/srv/outbox", "nfs4"),
        ("/srv/local/outbox", "xfs"),
        ("/srvice", "ext4"),
        ("/mnt/two words/outbox", "cifs"),
        ("/over/outbox", "fuse.sshfs"),
    ],
)
def test_the_nearest_mount_says_what_disk_it_is(mounts: Path, directory: str, kind: str) -> None:
    assert file_system(Path(directory), mounts) == kind


def test_where_nobody_says_it_is_not_known(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path / "none") is None


def test_a_private_directory(tmp_path: Path) -> None:
    directory = tmp_path / "outbox"
    directory.mkdir(mode=0o700)
    report = look_at_directory(directory)

    assert (report.exists, report.problem, report.open_to_others) == (True, None, False)
    assert report.free_bytes > 0
    assert list(directory.iterdir()) == []


def test_one_that_others_may_look_into(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    assert look_at_directory(tmp_path).open_to_others


def test_one_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    report = look_at_directory(tmp_path / "not" / "yet")

    assert (report.exists, report.problem) == (False, None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (
        look_at_directory(tmp_path / "file").problem == "it is no directory, or lies under a file"
    )
