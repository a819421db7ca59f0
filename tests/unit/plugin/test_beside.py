"""What an app keeps of its users beside the journals: found by who it is of, and erased with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from convex import ConvexError
from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    ErasedHere,
    Outbox,
    Recovery,
    erase_journals,
)
from livekit.plugins.convex.beside import erase_beside, path_beside
from livekit.plugins.convex.inspection import dead_records, journals
from livekit.plugins.convex.testing import FakeConvex
from tests.support.logged import logged

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import LiveRun, Outboxes

URL, OTHER_URL = "http://127.0.0.1:3210", "https://other.invalid"


def keep(directory: Path, student_id: str = "k57", deployment: str = URL) -> Path:
    """A file of the app's, as a crash may leave it: one that is there, and one half written."""
    directory.mkdir(exist_ok=True)
    path = path_beside(
        directory, subject=f"student:{student_id}", deployment=deployment, suffix=".profile"
    )
    path.write_text("private words")
    path.with_name(f".{path.name}.4f2a.tmp").write_text("private")
    return path


def test_the_name_gives_nobody_away_and_is_one_for_each_user_and_deployment(
    tmp_path: Path,
) -> None:
    paths = {keep(tmp_path, who, where) for who in ("k57", "k58") for where in (URL, OTHER_URL)}
    assert len(paths) == 4
    assert not any("k57" in path.name or "3210" in path.name for path in paths)
    assert {path.parent for path in paths} == {tmp_path}


def test_all_of_one_user_goes_and_nothing_of_another(tmp_path: Path) -> None:
    keep(tmp_path)
    keep(tmp_path, deployment=OTHER_URL)
    other = keep(tmp_path, "k58")

    assert erase_beside(tmp_path, subject="student:k57") == 4

    assert other in tmp_path.iterdir()
    assert len(list(tmp_path.iterdir())) == 2
    assert erase_beside(tmp_path, subject="student:k57") == 0
    assert erase_beside(tmp_path / "none", subject="student:k57") == 0


def test_the_operators_command_deletes_it(outboxes: Outboxes) -> None:
    outboxes.open("run_1").journal.close()
    keep(outboxes.directory)

    found = erase_journals(outboxes.directory, student_id="k57", deployment=URL)

    assert found == ErasedHere(deleted=1, beside=2)
    assert outboxes.names() == []


async def test_a_lesson_whose_student_is_erased_leaves_nothing_beside_it(
    live: LiveRun, outboxes: Outboxes
) -> None:
    keep(outboxes.directory)
    live.convex.refuse = lambda record: ("erased", "")
    live.say("item_0")
    await live.after(0.0)

    assert outboxes.names() == []


async def test_a_disk_that_refuses_to_delete_it_is_tried_again(
    live: LiveRun, outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal stays until it is gone: who else would ask Convex?"""
    keep(outboxes.directory)
    unlink = Path.unlink
    refusals = [OSError(5, "Input/output error")] * 2

    def failing(path: Path, *, missing_ok: bool = False) -> None:
        if refusals and "profile" in path.name:
            raise refusals.pop()
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", failing)
    live.convex.refuse = lambda record: ("erased", "")
    live.say("item_0")
    await live.after(0.0)
    assert "run_1.journal" in outboxes.names()
    await live.after(60.0)
    assert outboxes.names() == []


@pytest.mark.parametrize("kept", [".journal", ".dead"])
async def test_recovery_that_hears_it_deletes_it(
    outboxes: Outboxes, convex: FakeConvex, kept: str
) -> None:
    """From a journal that waits, and from what was kept for an operator."""

    def erased(args: Any) -> Any:
        raise ConvexError("…", {"code": "erased", "message": "…"})

    convex.on("sessions:record", erased)
    header = outboxes.header("run_1", deployment=convex.url)
    outbox = Outbox.open(outboxes.directory, header)
    outbox.append(outboxes.message("item_0"))
    if kept == ".dead":
        outbox.journal.bury({"seq": 0, "code": "x", "field": "", "at": 1.0, "record": {}})
        outbox.journal.path.unlink()
    outbox.journal.close()
    keep(outboxes.directory)
    token = AgentToken(AgentKey.generate(), subject="guest:worker")
    async with AsyncConvexClient(convex.url, token=token) as client:
        await Recovery(client, directory=outboxes.directory).sweep()

    assert outboxes.names() == []


async def test_nobody_takes_it_for_a_journal(
    outboxes: Outboxes, convex: FakeConvex, caplog: pytest.LogCaptureFixture
) -> None:
    path = keep(outboxes.directory)
    async with AsyncConvexClient(convex.url) as client:
        await Recovery(client, directory=outboxes.directory).sweep()

    assert path.read_text() == "private words"
    assert logged(caplog) == []
    assert convex.calls == []
    assert journals(outboxes.directory) == []
    assert dead_records(outboxes.directory) == []
