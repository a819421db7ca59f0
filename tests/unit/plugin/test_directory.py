"""An outbox directory that cannot be used is found at the worker's start, and said clearly."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from livekit.plugins.convex import OutboxError, Recovery, check_directory
from tests.support.logged import logged

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex

NOBODY = 65534


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user reaches; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Permissions mean nothing to root, which tests in containers often are."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(own)


def said_of(directory: Path) -> str:
    with pytest.raises(OutboxError) as caught:
        check_directory(directory)
    message = str(caught.value)
    assert message.startswith(f"the outbox directory {directory} cannot be used: ")
    assert message.endswith(
        "give the recorder a directory on a local disk that this user may write (outbox_dir)"
    )
    return message


def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "outbox"
    check_directory(str(directory))

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []


def test_a_directory_that_cannot_be_written_says_so(shared: Path) -> None:
    directory = shared / "outbox"
    directory.mkdir()
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, -1)
    directory.chmod(0o500)
    with as_nobody():
        assert "it is not writable" in said_of(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to another")
def test_a_directory_of_another_user_says_whose_it_is(shared: Path) -> None:
    directory = shared / "outbox"
    directory.mkdir(0o700)
    with as_nobody():
        assert f"it belongs to user 0, and this process is user {NOBODY}" in said_of(directory)
        # Nor can it be made where nothing may be.
        assert "it belongs to user 0" in said_of(shared / "deeper" / "outbox")


def test_another_users_directory_that_may_be_written_is_as_good_as_ones_own(shared: Path) -> None:
    """A volume's root often belongs to root, and is written by its group."""
    shared.chmod(0o777)
    with as_nobody():
        check_directory(shared)


def test_what_is_no_directory_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "no directory" in said_of(tmp_path / "file")
    assert "no directory" in said_of(tmp_path / "file" / "outbox")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "its disk is full"),
        (errno.EDQUOT, "its disk is full"),
        (errno.EROFS, "its file system is read-only"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_a_disk_that_refuses_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, says: str
) -> None:
    def refuse(fd: int, data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", refuse)
        assert says in said_of(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_with_room_for_half_of_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last blocks of a disk are given out in short writes."""
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", lambda fd, data: len(data) // 2)
        assert "its disk is full" in said_of(tmp_path)


def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers would deliver the same journal at once."""

    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as disk:
        disk.setattr("fcntl.flock", refuse)
        assert "no locks" in said_of(tmp_path)


async def test_a_worker_says_it_when_it_starts_and_goes_on(
    tmp_path: Path, folding: FoldingConvex, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    recovery = Recovery(folding, directory=tmp_path / "file" / "outbox")  # type: ignore[arg-type]
    recovery.start()
    await recovery.aclose()

    assert logged(caplog)[0] == "recovery.outbox_unusable"
    assert caplog.records[0].levelname == "ERROR"
    assert "cannot be used" in caplog.records[0].error  # type: ignore[attr-defined]


async def test_a_worker_with_a_directory_that_can_be_used_says_nothing(
    tmp_path: Path, folding: FoldingConvex, caplog: pytest.LogCaptureFixture
) -> None:
    recovery = Recovery(folding, directory=tmp_path / "outbox")  # type: ignore[arg-type]
    recovery.start()
    await recovery.aclose()

    assert logged(caplog) == []
