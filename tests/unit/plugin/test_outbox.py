"""The journal and its writing end: real files, refused writes, locks, forks."""

from __future__ import annotations

import errno
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from livekit.plugins.convex.encoding import RecordError
from livekit.plugins.convex.errors import JournalLockedError, OutboxError, OutboxFullError
from livekit.plugins.convex.journal import (
    Confirmed,
    Journal,
    decode_line,
    default_directory,
    encode_line,
)
from livekit.plugins.convex.reader import JournalReader
from livekit.plugins.convex.records import RunEndedRecord

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import Outboxes

NOW = 1_795_474_184.5


def stored(path: Path) -> list[dict[str, Any]]:
    """The readable records on disk, the header left out."""
    payloads = [decode_line(line) for line in path.read_bytes().split(b"\n")]
    return [msgspec.json.decode(p) for p in payloads if p is not None][1:]


class Refusing:
    """Stands in for os.write: takes `take` bytes of the next writes, then the disk is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.take: int | None = None
        self._write = os.write
        monkeypatch.setattr("livekit.plugins.convex.journal.os.write", self)

    def __call__(self, fd: int, data: bytes) -> int:
        if self.take is None:
            return self._write(fd, data)
        if self.take == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(fd, data[: self.take])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Refusing:
    return Refusing(monkeypatch)


def test_a_record_is_on_disk_when_append_returns(outboxes: Outboxes) -> None:
    outbox = outboxes.open()

    assert [outbox.append(outboxes.message(f"item_{n}")) for n in range(3)] == [0, 1, 2]

    records = stored(outbox.journal.path)
    assert [(record["seq"], record["itemId"]) for record in records] == [
        (0, "item_0"),
        (1, "item_1"),
        (2, "item_2"),
    ]


def test_only_its_owner_may_read_a_journal(outboxes: Outboxes) -> None:
    path = outboxes.open().journal.path

    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_journal_has_its_header_when_it_has_its_name(outboxes: Outboxes) -> None:
    path = outboxes.open().journal.path

    assert outboxes.names() == ["run_1.journal"]
    payload = decode_line(path.read_bytes().rstrip(b"\n"))
    assert payload is not None
    assert msgspec.json.decode(payload) == {
        "kind": "journal",
        "format": 1,
        "recordVersion": 1,
        "runId": "run_1",
        "sessionKey": "lesson_1",
        "subject": "student:k57",
        "studentId": "k57",
        "deployment": "http://127.0.0.1:3210",
        "startedAtMs": NOW * 1000,
        "steadyAtMs": 1000.0,
    }


def test_a_refused_record_uses_no_seq(outboxes: Outboxes) -> None:
    outbox = outboxes.open()
    with pytest.raises(RecordError):
        outbox.append(outboxes.message("item_1", created_at=float("nan")))

    assert outbox.append(outboxes.message("item_2")) == 0


def test_a_short_write_leaves_no_fragment(outboxes: Outboxes, disk: Refusing) -> None:
    """What cannot be written waits in memory, and goes to disk in order when that works again."""
    outbox = outboxes.open()
    outbox.append(outboxes.message("item_0"))
    size = outbox.journal.path.stat().st_size

    disk.take = 17
    assert outbox.append(outboxes.message("item_1")) == 1
    assert outbox.journal.path.stat().st_size == size
    assert outbox.waiting_in_memory == 1

    disk.take = None
    assert outbox.append(outboxes.message("item_2")) == 2
    assert outbox.waiting_in_memory == 0
    assert [record["seq"] for record in stored(outbox.journal.path)] == [0, 1, 2]


def test_a_fragment_that_cannot_be_cut_off_hurts_no_other_record(
    outboxes: Outboxes, disk: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = outboxes.open()
    with monkeypatch.context() as patch:
        patch.setattr("livekit.plugins.convex.journal.os.ftruncate", _fails)
        disk.take = 17
        outbox.append(outboxes.message("item_0"))
    disk.take = None
    outbox.append(outboxes.message("item_1"))

    assert [record["itemId"] for record in stored(outbox.journal.path)] == ["item_0", "item_1"]
    assert b"\n\n" not in outbox.journal.path.read_bytes()


def test_a_loss_is_counted_refused_and_announced_in_its_place(
    outboxes: Outboxes, disk: Refusing
) -> None:
    """Only when the disk refuses and the memory for that is full, too."""
    outbox = outboxes.open(max_tail_bytes=400)
    disk.take = 0
    kept = outbox.append(outboxes.message("item_0"))
    for n in range(3):
        with pytest.raises(OutboxFullError):
            outbox.append(outboxes.message(f"lost_{n}", text="x" * 400))
    disk.take = None

    assert outbox.lost == 3
    assert outbox.append(outboxes.message("item_1")) == kept + 4
    lost, after = stored(outbox.journal.path)[1:]
    assert (lost["kind"], lost["seq"], lost["fromSeq"], lost["toSeq"]) == ("lost", 3, 1, 3)
    assert (after["seq"], after["itemId"]) == (4, "item_1")


def test_an_announced_loss_is_read_as_it_was_announced(outboxes: Outboxes, disk: Refusing) -> None:
    """Not as damage: the disk was full, and nothing has happened to the journal."""
    outbox = outboxes.open(max_tail_bytes=0)
    disk.take = 0
    for n in range(3):
        with pytest.raises(OutboxFullError):
            outbox.append(outboxes.message(f"lost_{n}"))
    disk.take = None
    outbox.append(outboxes.message("item_1"))
    reader = JournalReader(outbox.journal)

    lost, after = (entry.record for entry in reader.read(reader.start()))
    assert (lost["fromSeq"], lost["toSeq"], lost["reason"]) == (0, 2, "outbox_full")
    assert after["seq"] == 3


def test_a_full_journal_still_takes_the_end(outboxes: Outboxes) -> None:
    outbox = outboxes.open(max_bytes=1000)
    with pytest.raises(OutboxFullError, match="max_bytes"):
        while True:
            outbox.append(outboxes.message("item"))

    outbox.append(RunEndedRecord(created_at=NOW, reason="done"))

    assert [record["kind"] for record in stored(outbox.journal.path)][-2:] == ["lost", "runEnded"]


def test_a_real_disk_limit_loses_nothing(outboxes: Outboxes) -> None:
    """The kernel itself cuts the write short, and refuses the next."""
    outbox = outboxes.open()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (outbox.journal.size + 500, hard))
        seqs = [outbox.append(outboxes.message(f"item_{n}")) for n in range(10)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert seqs == list(range(10))
    assert 0 < outbox.waiting_in_memory < 10
    outbox.append(outboxes.message("item_10"))
    assert outbox.waiting_in_memory == 0
    items = [record["itemId"] for record in stored(outbox.journal.path)]
    assert items == [f"item_{n}" for n in range(11)]


def test_a_forked_child_neither_writes_nor_keeps_the_lock(outboxes: Outboxes) -> None:
    """A lock outlives its owner in a child that inherited the open file."""
    outbox = outboxes.open()
    outbox.append(outboxes.message("item_0"))
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            outbox.append(outboxes.message("from the child"))
        except OutboxError:
            os.write(tell, b"refused")
        os.close(tell)
        time.sleep(60)
        os._exit(0)
    try:
        os.close(tell)
        assert os.read(told, 100) == b"refused"
        outbox.append(outboxes.message("item_1"))
        with pytest.raises(JournalLockedError):
            Journal.adopt(outbox.journal.path)

        outbox.journal.close()  # as the parent's death does
        Journal.adopt(outbox.journal.path).close()
    finally:
        os.close(told)
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert [record["itemId"] for record in stored(outbox.journal.path)] == ["item_0", "item_1"]


def test_a_journal_has_one_owner(outboxes: Outboxes) -> None:
    outbox = outboxes.open()
    with pytest.raises(JournalLockedError, match="held by another process"):
        Journal.adopt(outbox.journal.path)
    outbox.journal.close()

    adopted = Journal.adopt(outbox.journal.path)
    assert adopted.header == outboxes.header("run_1")


def test_a_closed_journal_is_free_at_once(outboxes: Outboxes) -> None:
    """Also while a slow disk is still busy with its sync, which keeps the file open."""
    outbox = outboxes.open()
    kept_open = os.dup(outbox.journal._fd)
    outbox.journal.close()
    try:
        Journal.adopt(outbox.journal.path).close()
    finally:
        os.close(kept_open)


def test_a_lock_on_a_file_that_lost_its_name_is_worth_nothing(
    outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another sweep delivered and deleted it between our open and our lock."""
    path = outboxes.abandoned("run_1", outboxes.message("item_0"))
    monkeypatch.setattr(
        "livekit.plugins.convex.journal.fcntl.flock", lambda fd, how: path.unlink(missing_ok=True)
    )
    with pytest.raises(JournalLockedError, match="gone"):
        Journal.adopt(path)


def test_a_lock_on_a_file_that_was_replaced_is_worth_nothing(
    outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = outboxes.abandoned("run_1")
    other = outboxes.abandoned("run_2")
    monkeypatch.setattr(
        "livekit.plugins.convex.journal.fcntl.flock", lambda fd, how: other.replace(path)
    )
    with pytest.raises(JournalLockedError, match="replaced"):
        Journal.adopt(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 512, b"3f1c09aa {}\n", b"no header at all"])
def test_a_journal_without_a_header_is_named_and_left_alone(
    outboxes: Outboxes, content: bytes
) -> None:
    path = outboxes.abandoned("run_1")
    path.write_bytes(content)
    with pytest.raises(OutboxError, match=r"run_1\.journal has no readable header"):
        Journal.adopt(path)
    assert path.read_bytes() == content


def test_a_journal_of_a_newer_version_is_left_for_it(outboxes: Outboxes) -> None:
    path = outboxes.abandoned("run_1")
    path.write_bytes(encode_line(msgspec.json.encode(outboxes.header("run_1", format=2))))
    with pytest.raises(OutboxError, match="newer version"):
        Journal.adopt(path)


def test_a_directory_that_cannot_be_used_is_named_with_a_remedy(
    outboxes: Outboxes, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    outboxes.directory = tmp_path / "file" / "outbox"
    with pytest.raises(OutboxError, match=r"file/outbox cannot be used: .*outbox_dir"):
        outboxes.open()


@pytest.mark.parametrize(
    "fault", [{"session_key": "private \ud800"}, {"subject": object()}], ids=["surrogate", "type"]
)
def test_a_header_that_cannot_be_written_is_an_outbox_error(
    outboxes: Outboxes, fault: dict[str, Any]
) -> None:
    for create in (lambda made: Journal.create(outboxes.directory, made), Journal.in_memory):
        with pytest.raises(OutboxError, match="header") as caught:
            create(outboxes.header(**fault))
        assert "private" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert not outboxes.directory.exists()


def test_an_outbox_that_has_ended_takes_nothing(outboxes: Outboxes) -> None:
    outbox = outboxes.open()
    outbox.close()
    outbox.close()
    with pytest.raises(OutboxError, match="has ended"):
        outbox.append(outboxes.message("item_0"))


def test_confirmed_is_read_back_and_a_torn_or_foreign_one_is_not(outboxes: Outboxes) -> None:
    path = outboxes.abandoned("run_1", outboxes.message("item_0"), outboxes.message("item_1"))
    journal = Journal.adopt(path)
    _, end = next(journal.lines(journal.body_offset))
    confirmed = Confirmed(seq=0, offset=end)

    journal.confirm(Confirmed(seq=1, offset=journal.size, ended=True))
    journal.confirm(confirmed)
    assert journal.confirmed() == confirmed

    side = path.with_suffix(".confirmed")
    good = side.read_bytes()
    for bad in (good[:20], good.replace(b'"seq":0', b'"seq":1'), b""):
        side.write_bytes(bad)
        assert journal.confirmed() is None
    for offset in (0, end - 1, journal.size + 10):
        journal.confirm(Confirmed(seq=0, offset=offset))
        assert journal.confirmed() is None


def test_the_end_of_a_torn_journal_is_a_place_to_go_on_from(outboxes: Outboxes) -> None:
    """Else it is sent anew, from its start, by every sweep for ever."""
    path = outboxes.abandoned("run_1", outboxes.message("item_0"))
    os.truncate(path, path.stat().st_size - 1)
    journal = Journal.adopt(path)
    confirmed = Confirmed(seq=0, offset=journal.size)
    journal.confirm(confirmed)

    assert journal.confirmed() == confirmed


def test_the_directory_comes_from_the_environment() -> None:
    assert default_directory({"CONVEX_OUTBOX_DIR": "/data/outbox"}) == Path("/data/outbox")
    assert default_directory({"XDG_STATE_HOME": "/state"}) == Path(
        "/state/livekit-plugins-convex/outbox"
    )
    assert default_directory({}) == (
        Path.home() / ".local" / "state" / "livekit-plugins-convex" / "outbox"
    )


def _fails(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")
