"""Records that were set aside, sent again: what is taken leaves the dead file, nothing else does."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from livekit.plugins.convex import JournalLockedError, OutboxError, Recovery
from livekit.plugins.convex.beside import path_beside
from livekit.plugins.convex.errors import FunctionError, TransportError
from livekit.plugins.convex.journal import Journal
from livekit.plugins.convex.set_aside import SetAside

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex, Outboxes


class Replacing:
    """`sessions:replace` in memory: takes what `refuse` does not throw at."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.taken: dict[int, dict[str, Any]] = {}
        self.refuse: Callable[[dict[str, Any]], Exception | None] = lambda record: None

    async def mutation(
        self,
        function: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        assert function == "sessions:replace" and args is not None
        assert (args["version"], args["runId"]) == (1, "run_1")
        record = args["record"]
        assert args["seq"] == record["seq"]
        self.sent.append(record)
        if (error := self.refuse(record)) is not None:
            raise error
        self.taken[record["seq"]] = record
        return {"replaced": True}

    async def query(self, *args: Any, **how: Any) -> Any:
        raise AssertionError("nothing is asked")


def thrown(code: str, **data: Any) -> FunctionError:
    return FunctionError("sessions:replace", data={"code": code, "message": "", **data})


@pytest.fixture
def replacing() -> Replacing:
    return Replacing()


class DeadFile:
    """What a sweep has left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / "run_1.dead"

    def take(self) -> SetAside:
        return SetAside.take(self.directory, "run_1")

    def content(self) -> bytes:
        return self._path.read_bytes()

    def mode(self) -> int:
        return self._path.stat().st_mode & 0o777

    def write_anew(self) -> None:
        copy = self._path.with_suffix(".copy")
        copy.write_bytes(self.content())
        copy.rename(self._path)

    def tear(self) -> None:
        with self._path.open("ab") as file:
            file.write(b"0000 torn")


@pytest.fixture
async def dead(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex, outboxes: Outboxes
) -> DeadFile:
    """A dead file with the records 1 and 2 of a run, and nothing else there."""
    folding.refuse = lambda record: (
        ("text_too_long", "text") if record.get("itemId") in ("item_1", "item_2") else None
    )
    dead_run("run_1", "item_0", "item_1", "item_2", end=True)
    await recovery.sweep()
    assert outboxes.names() == ["run_1.dead"]
    return DeadFile(outboxes.directory)


async def test_what_is_taken_leaves_the_file(
    dead: DeadFile, replacing: Replacing, outboxes: Outboxes
) -> None:
    header = dead.content().splitlines()[0]
    with dead.take() as taken:
        assert taken.header.subject == "student:k57"
        assert (await taken.retry(replacing, 1)).outcome == "taken"
        assert sorted(taken.entries) == [2]
    assert replacing.taken[1]["itemId"] == "item_1"
    assert dead.content().splitlines()[0] == header
    assert dead.mode() == 0o600

    with dead.take() as taken:
        assert (await taken.retry(replacing, 2)).outcome == "taken"
    assert outboxes.names() == []
    with pytest.raises(OutboxError, match="no record of the run run_1 was set aside"):
        dead.take()


async def test_a_mended_record_keeps_its_place_and_kind(
    dead: DeadFile, replacing: Replacing
) -> None:
    mended = {"itemId": "item_1", "text": "Shorter.", "seq": 7, "kind": "transcript"}
    with dead.take() as taken:
        await taken.retry(replacing, 1, record=mended)

    assert replacing.taken == {
        1: {"itemId": "item_1", "text": "Shorter.", "seq": 1, "kind": "message"}
    }


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (thrown("text_too_long", seq=1, field="text", limit=3), "refused", "text_too_long"),
        (thrown("invalid_value", field="record.kind"), "refused", "invalid_value"),
        (thrown("not_found", seq=1), "held", "not_found"),
        (thrown("forbidden"), "held", "forbidden"),
        (FunctionError("sessions:replace"), "held", "FunctionError"),
        (TransportError("no answer"), "held", "TransportError"),
    ],
)
async def test_what_is_not_taken_stays_with_a_remedy(
    dead: DeadFile, replacing: Replacing, error: Exception, outcome: str, reason: str
) -> None:
    before = dead.content()
    replacing.refuse = lambda record: error
    with dead.take() as taken:
        tried = await taken.retry(replacing, 1)

    assert (tried.outcome, tried.reason) == (outcome, reason)
    assert tried.remedy
    assert dead.content() == before
    assert len(replacing.sent) == 1


async def test_what_replacingcannot_hold_is_refused_by_its_field(
    dead: DeadFile, recovery: Recovery
) -> None:
    with dead.take() as taken:
        tried = await taken.retry(recovery._client, 1, record={"text": "half \ud83d"})

    assert (tried.outcome, tried.reason, tried.field) == (
        "refused",
        "EncodingError",
        "args.record.text",
    )


async def test_an_erased_students_record_is_gone(
    dead: DeadFile, replacing: Replacing, outboxes: Outboxes
) -> None:
    replacing.refuse = lambda record: thrown("erased")
    path_beside(
        outboxes.directory, subject="student:k57", deployment="", suffix=".profile"
    ).write_text("private words")
    with dead.take() as taken:
        assert [(await taken.retry(replacing, seq)).outcome for seq in (1, 2)] == ["erased"] * 2
    assert outboxes.names() == []


async def test_cutting_fits_one_field_after_the_other(dead: DeadFile, replacing: Replacing) -> None:
    """By what Convex says, in whole characters."""

    def refuse(record: dict[str, Any]) -> Exception | None:
        if len(record["text"].encode()) > 5:
            return thrown("text_too_long", seq=1, field="text", limit=5.0)
        for n, model in enumerate(record["models"]):
            if len(model["provider"]) > 2:
                field = f"models[{n}].provider"
                return thrown("field_too_long", seq=1, field=field, limit=2.0)
        if len(record["models"]) > 1:
            return thrown("too_many_items", seq=1, field="models", limit=1.0)
        return None

    replacing.refuse = refuse
    long = {"text": "grüße", "models": [{"provider": "open"}, {"provider": "ab"}]}
    with dead.take() as taken:
        tried = await taken.retry(replacing, 1, record=long, truncate=True)

    assert (tried.outcome, tried.cut) == ("taken", ("text", "models[0].provider", "models"))
    assert replacing.taken[1]["text"] == "grü"
    assert replacing.taken[1]["models"] == [{"provider": "op"}]
    assert long["text"] == "grüße"


@pytest.mark.parametrize(
    "error",
    [
        thrown("instant_out_of_range", seq=1, field="createdAt", limit=1.0),
        thrown("text_too_long", seq=1, field="nowhere.at[3].all", limit=1.0),
        thrown("text_too_long", seq=1, field="text"),
        thrown("text_too_long", seq=1, field="text", limit=100_000.0),
    ],
)
async def test_what_no_cut_helps_is_refused(
    dead: DeadFile, replacing: Replacing, error: Exception
) -> None:
    replacing.refuse = lambda record: error
    with dead.take() as taken:
        tried = await taken.retry(replacing, 1, truncate=True)

    assert (tried.outcome, tried.cut) == ("refused", ())
    assert len(replacing.sent) == 1


async def test_a_damaged_line_stays_where_it_is(dead: DeadFile, replacing: Replacing) -> None:
    dead.tear()
    with dead.take() as taken:
        await taken.retry(replacing, 1)

    assert dead.content().endswith(b"0000 torn\n")


async def test_a_living_runs_records_are_left_to_it(dead: DeadFile, outboxes: Outboxes) -> None:
    journal = Journal.create(outboxes.directory, outboxes.header("run_1"))
    with pytest.raises(JournalLockedError, match="held by a running worker"):
        dead.take()
    journal.close()

    with dead.take(), pytest.raises(JournalLockedError):
        Journal.adopt(journal.path)
    Journal.adopt(journal.path).close()


async def test_two_at_once_send_nothing_twice(dead: DeadFile, replacing: Replacing) -> None:
    with dead.take() as taken:
        with pytest.raises(JournalLockedError, match="retried by another process"):
            dead.take()
        await taken.retry(replacing, 1)
        with pytest.raises(JournalLockedError, match="retried by another process"):
            dead.take()
    dead.take().close()


async def test_a_file_that_another_has_just_written_anew_is_not_believed(
    dead: DeadFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def replaced_before(fd: int, how: int) -> None:
        dead.write_anew()
        lock(fd, how)

    with monkeypatch.context() as patch:
        patch.setattr("livekit.plugins.convex.set_aside.fcntl.flock", replaced_before)
        with pytest.raises(JournalLockedError):
            dead.take()
    dead.take().close()


async def test_a_disk_that_fails_leaves_the_file_as_it_was(
    dead: DeadFile, replacing: Replacing, outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dead.content()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("livekit.plugins.convex.set_aside.os.fsync", fail)
    with dead.take() as taken, pytest.raises(OSError):
        await taken.retry(replacing, 1)

    assert dead.content() == before
    assert outboxes.names() == ["run_1.dead"]
