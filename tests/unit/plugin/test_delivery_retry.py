"""Delivery while Convex is away, slow, or somewhere else than we thought."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from livekit.plugins.convex.errors import BusyError, RequestTimeoutError, TransportError
from livekit.plugins.convex.records import AT_ONCE_S
from tests.support.logged import logged

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import LiveRun


async def test_a_lost_reply_adds_no_second_row(live: LiveRun) -> None:
    """The mutation committed, its answer never came, the batch was sent again."""
    live.convex.after = [TransportError("sessions:record: connection lost")]
    live.say("item_0")
    await live.after(20.0)

    assert live.convex.item_ids() == ["item_0"]
    assert live.convex.batches == [[0], [0]]


async def test_it_retries_for_ever_with_growing_waits_and_says_so_once(
    live: LiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="livekit.plugins.convex")
    live.convex.before = [TransportError("refused") for _ in range(9)]
    await live.after(0.0)
    live.clock.slept.clear()
    live.say("item_0")
    await live.after(120.0)

    waits = [s for s in live.clock.slept if s not in (AT_ONCE_S, 1.0)]
    assert waits == [0.25, 0.5, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert live.convex.item_ids() == ["item_0"]
    assert logged(caplog) == ["outbox.delivery_delayed", "outbox.delivery_resumed"]
    delayed = caplog.records[0]
    assert (delayed.error, delayed.pending) == ("TransportError", 1)  # type: ignore[attr-defined]


async def test_it_waits_as_long_as_convex_asks(live: LiveRun) -> None:
    live.convex.before = [BusyError("busy", status=503, retry_after_s=40.0)]
    live.say("item_0")
    await live.after(39.0)
    assert len(live.convex.batches) == 1
    await live.after(2.0)
    assert live.convex.item_ids() == ["item_0"]


async def test_an_append_does_not_end_a_backoff(live: LiveRun) -> None:
    live.convex.before = [BusyError("busy", status=503, retry_after_s=10.0)]
    live.say("item_0")
    await live.after(1.0)
    live.say("item_1")
    await live.after(1.0)

    assert len(live.convex.batches) == 1


async def test_it_goes_back_where_convex_says_it_is(live: LiveRun) -> None:
    """The deployment was restored from a backup that is older than our confirmation."""
    for n in range(4):
        live.say(f"item_{n}")
    await live.after(0.0)
    live.convex.rows["run_1"] = live.convex.rows["run_1"][:1]
    live.say("item_4")
    await live.after(0.0)

    assert live.convex.item_ids() == [f"item_{n}" for n in range(5)]
    assert live.convex.batches == [[0, 1, 2, 3], [4], [1, 2, 3, 4]]


async def test_it_goes_forward_where_convex_is_ahead(run: LiveRun) -> None:
    """The confirmation was lost with its file; Convex skips what it has."""
    for n in range(3):
        run.say(f"item_{n}")
    await run.start().flush(1.0)
    run.outbox.journal.path.with_suffix(".confirmed").unlink()
    again = run.start()
    run.say("item_3")
    await again.flush(1.0)

    assert run.convex.item_ids() == [f"item_{n}" for n in range(4)]


async def test_a_server_that_answers_nonsense_is_not_hammered(
    live: LiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies: list[Any] = [None, {}, {"seq": "0"}, {"seq": -1.0}]
    calls = 0

    async def nonsense(*_: object, **__: object) -> Any:
        nonlocal calls
        calls += 1
        return replies[min(calls, len(replies)) - 1]

    monkeypatch.setattr(live.convex, "mutation", nonsense)
    live.say("item_0")
    await live.after(60.0)

    assert live.delivery.pending == 1
    assert calls < 40


async def test_a_slow_backend_is_given_more_time(
    live: LiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float | None] = []
    fold = live.convex.mutation

    async def slow(function: str, args: Any = None, *, timeout_s: float | None = None) -> Any:
        deadlines.append(timeout_s)
        if timeout_s is not None and timeout_s < 35:
            raise RequestTimeoutError("no answer")
        return await fold(function, args, timeout_s=timeout_s)

    monkeypatch.setattr(live.convex, "mutation", slow)
    live.say("item_0")
    await live.after(60.0)

    assert deadlines == [10.0, 20.0, 40.0]
    assert live.convex.item_ids() == ["item_0"]
