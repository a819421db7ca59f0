"""What Convex refuses: one record for good, or everything until it is repaired."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from livekit.plugins.convex.errors import AuthenticationError, FunctionError
from livekit.plugins.convex.sender import Sender
from tests.support.logged import logged

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import LiveRun, Outboxes

NOW = 1_795_474_184.5


async def test_a_refused_record_is_set_aside_alone(
    live: LiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    live.convex.refuse = lambda record: (
        ("text_too_long", "text") if record.get("itemId") == "bad" else None
    )
    for item in ("item_0", "bad", "item_2"):
        live.say(item, text="private words")
    await live.after(0.0)

    assert [record["kind"] for record in live.convex.folded] == ["message", "setAside", "message"]
    assert live.convex.folded[1] == {
        "seq": 1,
        "kind": "setAside",
        "createdAt": NOW * 1000,
        "code": "text_too_long",
        "field": "text",
        "ofKind": "message",
    }
    dead = live.outbox.journal.dead()[1]
    assert (dead["code"], dead["record"]["itemId"]) == ("text_too_long", "bad")
    assert live.delivery.sender.set_aside == 1
    assert live.delivery.sender.delivered == 2
    assert logged(caplog) == ["outbox.record_set_aside"]
    assert "private" not in str([record.__dict__ for record in caplog.records])


async def test_after_a_crash_it_is_not_set_aside_twice(run: LiveRun) -> None:
    """The dead file was written, the process died before the tombstone was confirmed."""
    run.say("bad")
    entry = {"seq": 0, "code": "text_too_long", "field": "text", "at": NOW * 1000, "record": {}}
    run.outbox.journal.bury(entry)
    dead = run.outbox.journal.path.with_suffix(".dead").read_bytes()
    run.start()
    await run.delivery.flush(1.0)

    assert [record["kind"] for record in run.convex.folded] == ["setAside"]
    assert run.outbox.journal.path.with_suffix(".dead").read_bytes() == dead


async def test_set_aside_records_outlive_the_journal(live: LiveRun, outboxes: Outboxes) -> None:
    live.convex.refuse = lambda record: ("too_many_items", "models")
    live.say("item_0")
    live.end()
    await live.delivery.aclose(5.0)

    assert outboxes.names() == ["run_1.dead"]


async def test_a_refused_record_that_only_the_journal_has_outlives_a_crash(
    run: LiveRun, outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dead file could not be written, then the process died; recovery deletes nothing."""

    def refuse(entry: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run.convex.refuse = lambda record: ("text_too_long", "text")
    run.say("item_0")
    run.end()
    monkeypatch.setattr(run.outbox.journal, "bury", refuse)
    assert await Sender(run.outbox.journal, run.convex, outbox=run.outbox).drain() is None
    run.outbox.journal.close()
    sender = Sender(outboxes.adopt(run.outbox.journal.path), run.convex)

    assert await sender.drain() is None
    assert sender.finish()
    assert outboxes.names() == ["run_1.damaged"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (FunctionError("sessions:record"), "FunctionError"),
        (
            FunctionError("sessions:record", data={"code": "student_unknown", "seq": 0.0}),
            "student_unknown",
        ),
        (FunctionError("sessions:record", data={"code": "text_too_long"}), "text_too_long"),
        (
            FunctionError("sessions:record", data={"code": "text_too_long", "seq": 99.0}),
            "text_too_long",
        ),
        (AuthenticationError("the token was refused"), "AuthenticationError"),
        (ValueError("a client's own fault"), "ValueError"),
        (FunctionError("sessions:record", data={"code": "version_unsupported"}), None),
    ],
)
async def test_a_bad_deployment_hurts_no_record(
    live: LiveRun, caplog: pytest.LogCaptureFixture, failure: Exception, reason: str | None
) -> None:
    """Held and tried again, with one line; a repaired deployment finds everything."""
    live.convex.before = [failure] * 5
    live.say("item_0")
    await live.after(2.0)

    assert live.delivery.sender.held is not None
    assert live.delivery.sender.held.reason == reason or reason is None
    await live.after(60.0)
    assert live.convex.item_ids() == ["item_0"]
    assert live.delivery.sender.set_aside == 0
    assert logged(caplog, logging.WARNING) == ["outbox.delivery_held"]


async def test_older_functions_are_named_at_the_start_and_hold_the_journal(
    run: LiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    run.convex.versions = [0]
    run.start()
    await run.after(0.0)
    assert logged(caplog) == ["outbox.version_unsupported"]
    assert "npx convex deploy" in caplog.records[0].remedy  # type: ignore[attr-defined]

    run.say("item_0")
    await run.after(30.0)
    assert run.delivery.pending == 1
    run.convex.versions = [0, 1]
    await run.after(30.0)

    assert run.convex.item_ids() == ["item_0"]
