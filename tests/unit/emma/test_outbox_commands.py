"""The `outbox` commands: what they show, what they deliver, what they say and with which code."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convex import ConvexError
from emma_agent import outbox_drain
from emma_agent.known_context import KnownContext, keep
from livekit.plugins.convex import AgentKey, MessageRecord, Outbox, RunEndedRecord
from livekit.plugins.convex.journal import FORMAT, Header, Journal
from livekit.plugins.convex.limits import RECORD_VERSION
from livekit.plugins.convex.testing import FakeConvex
from tests.support.commands import clean_environment, run, run_beside
from tests.support.damage import flip
from tests.support.folded import Folded
from tests.support.wire import tutoring_context

NOW = 1_795_474_184.5
SECRET = "I have never told anybody"
OTHER = "https://elsewhere.convex.cloud"


@pytest.fixture(autouse=True)
def directory(
    monkeypatch: pytest.MonkeyPatch, convex: FakeConvex, tmp_path: Path
) -> Iterator[Path]:
    """The outbox, of a worker whose deployment is `convex`."""
    clean_environment(monkeypatch)
    directory = tmp_path / "outbox"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("CONVEX_URL", convex.url)
    monkeypatch.setenv("CONVEX_AGENT_KEY", AgentKey.generate().pem())
    monkeypatch.setenv("EMMA_OUTBOX_DIR", str(directory))
    yield directory


def lesson(directory: Path, run_id: str, deployment: str, *, items: int = 2) -> Outbox:
    """A run that has said something."""
    header = Header(
        format=FORMAT,
        record_version=RECORD_VERSION,
        run_id=run_id,
        session_key=f"lesson-{run_id}",
        subject=f"guest:lesson-{run_id}",
        deployment=deployment,
        started_at_ms=time.time() * 1000,
        steady_at_ms=0.0,
    )
    outbox = Outbox.open(directory, header)
    for n in range(items):
        said = MessageRecord(
            created_at=NOW, item_id=f"item_{n}", role="user", text=SECRET, interrupted=False
        )
        outbox.append(said)
    return outbox


def dead_lesson(directory: Path, run_id: str, deployment: str, *, end: bool = True) -> Path:
    outbox = lesson(directory, run_id, deployment)
    if end:
        outbox.append(RunEndedRecord(created_at=NOW, reason="done"))
    outbox.journal.close()
    return outbox.journal.path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def refuse(convex: FakeConvex, code: str, **data: object) -> None:
    """Let `sessions:record` refuse the first item for good."""
    Folded(convex)
    record = convex._handlers["sessions:record"]

    def answer(args: dict[str, Any]) -> object:
        for row in args["records"]:
            if row.get("itemId") == "item_0":
                raise ConvexError("…", {"code": code, "message": "…", "seq": row["seq"], **data})
        return record(args)

    convex.on("sessions:record", answer)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


# status


async def test_status_of_an_empty_outbox(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path
) -> None:
    assert run(monkeypatch, "outbox", "status") == 0
    assert capsys.readouterr().out == f"Nothing waits in {directory}.\n"
    assert run(monkeypatch, "outbox", "status", "--json") == 0
    assert printed(capsys)["journals"] == []


async def test_what_was_last_known_of_a_student_is_no_journal_to_any_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    convex: FakeConvex,
    directory: Path,
) -> None:
    Folded(convex)
    known = KnownContext(
        deployment=convex.url,
        student_id="student_1",
        lesson_id="lesson_1",
        session_key="s1",
        kept_at=time.time(),
        context=tutoring_context(),
    )
    keep(directory, known)
    before = contents(directory)
    assert run(monkeypatch, "outbox", "status") == 0
    assert capsys.readouterr().out == f"Nothing waits in {directory}.\n"
    assert run(monkeypatch, "outbox", "dead") == 0
    assert run(monkeypatch, "outbox", "readdress", "--from", OTHER) == 0
    dead_lesson(directory, "run_1", convex.url)
    assert await run_beside(monkeypatch, "outbox", "drain") == 0
    assert contents(directory) == before
    [name] = before
    assert run(monkeypatch, "outbox", "inspect", name.removesuffix(".context"), "--show") == 2
    written = capsys.readouterr()
    assert "Ana" not in written.out + written.err


async def test_status_tells_how_each_journal_stands_and_touches_none(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    live = lesson(directory, "run_live", convex.url)
    dead_lesson(directory, "run_waiting", convex.url)
    dead_lesson(directory, "run_foreign", OTHER)
    flip(dead_lesson(directory, "run_torn", convex.url), b"item_0")
    os.truncate(dead_lesson(directory, "run_empty", convex.url), 0)
    before = contents(directory)

    assert run(monkeypatch, "outbox", "status", "--json") == 1

    shown = printed(capsys)
    states = {one["run"]: one["state"] for one in shown["journals"]}
    assert states == {
        "run_live": "live",
        "run_waiting": "waiting",
        "run_foreign": "foreign",
        "run_torn": "damaged",
        "run_empty": "damaged",
    }
    assert all(one["remedy"] for one in shown["journals"])
    assert shown["pending"] == 2 + 3 * 3
    waiting = next(one for one in shown["journals"] if one["run"] == "run_waiting")
    assert (waiting["session"], waiting["records"], waiting["confirmed"]) == (
        "lesson-run_waiting",
        3,
        0,
    )
    assert contents(directory) == before
    assert convex.calls == []
    live.append(RunEndedRecord(created_at=NOW, reason="done"))


async def test_statuss_table_names_runs_states_remedies_and_totals(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    dead_lesson(directory, "run_waiting", convex.url)
    dead_lesson(directory, "run_foreign", OTHER)
    assert run(monkeypatch, "outbox", "status") == 1
    shown = capsys.readouterr().out

    assert "run_waiting" in shown and convex.url in shown and "2 in all" in shown
    assert "run_waiting: waiting, 3 pending; a running worker delivers it" in shown
    assert f"`python -m emma_agent outbox readdress --from {OTHER}`" in shown
    assert SECRET not in shown


async def test_a_live_run_of_which_convex_has_all_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    live = lesson(directory, "run_live", convex.url, items=0)
    assert run(monkeypatch, "outbox", "status", "--json") == 0
    assert printed(capsys)["journals"][0]["remedy"] is None
    live.append(RunEndedRecord(created_at=NOW, reason="done"))
    assert run(monkeypatch, "outbox", "status") == 1


async def test_without_a_deployment_nothing_can_be_delivered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path
) -> None:
    dead_lesson(directory, "run_1", OTHER)
    monkeypatch.delenv("CONVEX_URL")
    assert run(monkeypatch, "outbox", "status", "--json") == 1
    [one] = printed(capsys)["journals"]
    assert one["state"] == "held"
    assert "CONVEX_URL is not set" in one["remedy"]


@pytest.mark.parametrize("command", ["status", "dead", "drain", "inspect run_1", "retry run_1"])
async def test_a_directory_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
) -> None:
    monkeypatch.setenv("EMMA_OUTBOX_DIR", str(tmp_path / "misspelt"))
    assert run(monkeypatch, "outbox", *command.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("EMMA_OUTBOX_DIR: there is no directory ")


async def test_a_directory_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(self: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert run(monkeypatch, "outbox", "status") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "cannot be used (Permission denied); run this as the worker's user." in line


# drain


async def test_drain_delivers_what_is_this_deployments(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    folded = Folded(convex)
    dead_lesson(directory, "run_1", convex.url)
    dead_lesson(directory, "run_2", convex.url, end=False)

    assert await run_beside(monkeypatch, "outbox", "drain") == 0

    assert capsys.readouterr().out == "Delivered: 6 records.\n"
    assert {run_id: len(records) for run_id, records in folded.records.items()} == {
        "run_1": 3,
        "run_2": 3,
    }
    assert contents(directory) == {}
    assert await run_beside(monkeypatch, "outbox", "drain", "--json") == 0
    assert printed(capsys) == {"delivered": 0, "runsLost": 0, "interrupted": False, "left": []}


async def test_drain_says_what_is_left_and_why(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    """Functions that throw: asked once, since waiting does not mend them."""
    convex.on("sessions:record", lambda args: 1 / 0)
    dead_lesson(directory, "run_1", convex.url)
    dead_lesson(directory, "run_2", OTHER)
    live = lesson(directory, "run_3", convex.url)

    assert await run_beside(monkeypatch, "outbox", "drain", "--json") == 1

    left = {one["run"]: one for one in printed(capsys)["left"]}
    assert {run_id: one["state"] for run_id, one in left.items()} == {
        "run_1": "held",
        "run_2": "foreign",
        "run_3": "live",
    }
    assert left["run_1"]["remedy"].startswith("FunctionError: ")
    assert convex.call_count("sessions:record") == 1
    live.append(RunEndedRecord(created_at=NOW, reason="done"))


async def test_a_damaged_journal_is_delivered_as_far_as_it_can_be_and_stays_to_be_looked_at(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    Folded(convex)
    flip(dead_lesson(directory, "run_1", convex.url), b"item_0")
    assert await run_beside(monkeypatch, "outbox", "drain") == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == "Delivered: 2 records."
    assert second.startswith("run_1: damaged, 0 pending; what can be read of it is delivered; ")
    assert run(monkeypatch, "outbox", "status") == 1
    assert run(monkeypatch, "outbox", "inspect", "run_1") == 0


async def test_drain_asks_again_while_convex_is_away(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    monkeypatch.setattr(outbox_drain, "_PAUSE_S", 0.01)
    Folded(convex)
    convex.fail_next(503, times=3)
    dead_lesson(directory, "run_1", convex.url)

    assert await run_beside(monkeypatch, "outbox", "drain", "--json") == 0
    assert printed(capsys)["delivered"] == 3


@pytest.mark.parametrize("arguments", [[], ["--timeout", "0.2"]])
async def test_drain_gives_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
    arguments: list[str],
) -> None:
    if not arguments:
        monkeypatch.setattr(outbox_drain, "PATIENCE_S", 0.2)
    monkeypatch.setattr(outbox_drain, "_PAUSE_S", 0.05)
    convex.fail_next(503, times=10_000)
    path = dead_lesson(directory, "run_1", convex.url)
    before = path.read_bytes()

    async with asyncio.timeout(10):
        assert await run_beside(monkeypatch, "outbox", "drain", *arguments) == 1

    first, second = capsys.readouterr().out.splitlines()
    assert first == "Delivered: 0 records."
    assert second.startswith("run_1: held, 3 pending; BusyError: it is delivered when Convex ")
    assert path.read_bytes() == before


async def test_ctrl_c_ends_a_drain_with_what_is_left(
    directory: Path, convex: FakeConvex, tmp_path: Path
) -> None:
    convex.hang_next(times=1000)
    dead_lesson(directory, "run_1", convex.url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "emma_agent", "outbox", "drain"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A shell lets what it starts in the background ignore Ctrl-C; the tests may be that.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    async with asyncio.timeout(60):
        await convex.called("sessions:record")
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()

    assert process.returncode == 1
    lines = out.decode().splitlines()
    assert lines[0] == "Interrupted. Delivered: 0 records."
    assert lines[1].startswith("run_1: waiting, 3 pending; ")
    assert b"Traceback" not in err


async def test_drain_needs_a_deployment_and_a_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CONVEX_URL")
    monkeypatch.delenv("CONVEX_AGENT_KEY")
    assert run(monkeypatch, "outbox", "drain") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("CONVEX_URL is not set: ")
    assert second.startswith("CONVEX_AGENT_KEY is not set: ")


# dead, retry


@pytest.fixture
async def refused(
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
    convex: FakeConvex,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first item of the run `run_1` was refused for good."""
    refuse(convex, "text_too_long", field="text", limit=4.0)
    dead_lesson(directory, "run_1", convex.url)
    assert await run_beside(monkeypatch, "outbox", "drain") == 0
    assert list(contents(directory)) == ["run_1.dead"]
    capsys.readouterr()


@pytest.mark.usefixtures("refused")
async def test_dead_records_are_listed_without_what_was_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "outbox", "dead") == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("run_1 0 message: text_too_long: text, ")
    assert "`python -m emma_agent outbox retry run_1 0`" in line
    assert run(monkeypatch, "outbox", "dead", "run_1", "--json") == 1
    [one] = printed(capsys)
    assert (one["run"], one["seq"], one["code"]) == ("run_1", 0, "text_too_long")
    assert "record" not in one
    assert run(monkeypatch, "outbox", "dead", "another") == 0
    assert capsys.readouterr().out == ""
    assert run(monkeypatch, "outbox", "dead", "--show", "--json") == 1
    assert printed(capsys)[0]["record"]["text"] == SECRET
    assert run(monkeypatch, "outbox", "status", "--json") == 1
    [one] = printed(capsys)["journals"]
    assert (one["state"], one["pending"]) == ("dead", 1)


@pytest.mark.usefixtures("refused")
async def test_retry_truncates_to_what_convex_takes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    taken: list[Any] = []

    def replace(args: dict[str, Any]) -> object:
        if len(args["record"]["text"]) > 4:
            refusal = {"code": "text_too_long", "message": "…", "field": "text", "limit": 4.0}
            raise ConvexError("…", {**refusal, "seq": args["seq"]})
        taken.append(args)
        return {"replaced": True}

    convex.on("sessions:replace", replace)
    assert await run_beside(monkeypatch, "outbox", "retry", "run_1") == 1
    assert capsys.readouterr().out == (
        "run_1 0: refused, text_too_long: text; cut text to fit, or mend it by hand\n"
    )
    assert await run_beside(monkeypatch, "outbox", "retry", "run_1", "0", "--truncate") == 0
    assert capsys.readouterr().out == "run_1 0: taken (cut: text)\n"
    assert (taken[0]["runId"], taken[0]["seq"], taken[0]["record"]["text"]) == ("run_1", 0, "I ha")
    assert contents(directory) == {}


@pytest.mark.usefixtures("refused")
async def test_retry_sends_a_record_mended_by_hand(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    convex: FakeConvex,
    tmp_path: Path,
) -> None:
    run(monkeypatch, "outbox", "dead", "--show", "--json")
    [one] = printed(capsys)
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps({**one["record"], "text": "Good"}))
    texts: list[str] = []
    convex.on("sessions:replace", lambda args: texts.append(args["record"]["text"]))

    arguments = ["outbox", "retry", "run_1", "0", "--edit", str(mended), "--json"]
    assert await run_beside(monkeypatch, *arguments) == 0

    assert texts == ["Good"]
    assert printed(capsys)[0]["outcome"] == "taken"


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(
    ("arguments", "content", "says"),
    [
        (["run_2"], None, "no record of the run run_2 was set aside here"),
        (["run_1", "7"], None, "No record 7 of this run was set aside; there is: 0."),
        (["run_1", "--edit"], "{}", "--edit mends one record: say which"),
        (["run_1", "0", "--edit"], "{", "cannot be read as JSON (JSONDecodeError)."),
        (["run_1", "0", "--edit"], "[]", "holds no record: it must be one JSON object."),
    ],
)
async def test_a_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    content: str | None,
    says: str,
) -> None:
    if content is not None:
        (tmp_path / "edit.json").write_text(content)
        arguments = [*arguments, str(tmp_path / "edit.json")]
    assert await run_beside(monkeypatch, "outbox", "retry", *arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert says in line


@pytest.mark.usefixtures("refused")
async def test_retry_asks_no_other_deployment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONVEX_URL", OTHER)
    assert run(monkeypatch, "outbox", "retry", "run_1") == 2
    assert "set it to theirs." in capsys.readouterr().err


@pytest.mark.usefixtures("refused")
async def test_retry_leaves_a_living_run_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    live = lesson(directory, "run_1", convex.url)
    assert run(monkeypatch, "outbox", "retry", "run_1") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == ("the run run_1 is held by a running worker; try again when it has ended.")
    live.append(RunEndedRecord(created_at=NOW, reason="done"))


# inspect


async def test_inspect_shows_the_journal_without_what_was_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    flip(dead_lesson(directory, "run_1", convex.url), b"item_1")
    assert run(monkeypatch, "outbox", "inspect", "run_1") == 0
    header, first, damaged, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert (header["runId"], header["deployment"]) == ("run_1", convex.url)
    assert (first["itemId"], first["role"]) == ("item_0", "user")
    assert first["text"] == f"<{len(SECRET)} bytes>"
    assert damaged == {"damaged": True}
    assert end["reason"] == "done"
    assert run(monkeypatch, "outbox", "inspect", "run_1", "--show") == 0
    assert SECRET in capsys.readouterr().out


async def test_inspect_says_what_it_cannot_find_or_read(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: Path,
    convex: FakeConvex,
) -> None:
    assert run(monkeypatch, "outbox", "inspect", "run_1") == 2
    assert capsys.readouterr().err.startswith("There is no journal of a run run_1 in ")
    os.truncate(dead_lesson(directory, "run_1", convex.url), 0)
    assert run(monkeypatch, "outbox", "inspect", "run_1") == 2
    assert capsys.readouterr().err == "run_1.journal has no readable header\n"


# readdress


def test_journals_of_a_wrong_address_are_readdressed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path
) -> None:
    new = os.environ["CONVEX_URL"]
    for number, url in enumerate(["http://wrong:1", "http://wrong:1", "http://other:1"]):
        dead_lesson(directory, f"run{number}", url)
    held = lesson(directory, "run3", "http://wrong:1")

    assert run(monkeypatch, "outbox", "readdress", "--from", "http://wrong:1/") == 0

    assert capsys.readouterr().out.strip().endswith("instead of http://wrong:1: 2")
    held.journal.close()
    assert [
        Journal.adopt(path).header.deployment for path in sorted(directory.glob("*.journal"))
    ] == [new, new, "http://other:1", "http://wrong:1"]


@pytest.mark.parametrize(
    ("url", "old", "says"),
    [
        (None, "http://wrong:1", "CONVEX_URL is not set: "),
        ("http://a:1", "wrong", "--from (wrong) is not an absolute http(s) address"),
        ("http://a:1", "http://a:1/", "--from names the deployment in CONVEX_URL itself"),
        ("http://a:1", "http://wrong:1", "EMMA_OUTBOX_DIR: there is no directory "),
    ],
)
def test_readdressing_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    url: str | None,
    old: str,
    says: str,
) -> None:
    monkeypatch.setenv("EMMA_OUTBOX_DIR", str(tmp_path / "misspelt"))
    if url is None:
        monkeypatch.delenv("CONVEX_URL")
    else:
        monkeypatch.setenv("CONVEX_URL", url)
    assert run(monkeypatch, "outbox", "readdress", "--from", old) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(says)
