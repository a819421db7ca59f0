"""Any interleaving of append, deliver, crash, repeat, sweep and clock jump, against a model.

The model is a list per run: what `append` has returned for. In the end Convex has just that, once
and in order, however it got there.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from livekit.plugins.convex.clock import TOLERANCE_S, RunClock
from livekit.plugins.convex.errors import BusyError, TransportError
from livekit.plugins.convex.journal import _OPEN, CONFIRMED_SUFFIX, SUFFIX
from livekit.plugins.convex.outbox import Outbox
from livekit.plugins.convex.records import RunEndedRecord
from livekit.plugins.convex.recovery import Recovery
from livekit.plugins.convex.sender import Sender
from tests.unit.plugin.conftest import NOW, URL, FoldingConvex, header, message

T = TypeVar("T")

# Its size, the seconds since the last one, and to what the wall clock was set meanwhile, if it was.
SENTENCE = st.tuples(
    st.sampled_from([1, 200, 60_000]),
    st.floats(0.0, 30.0),
    st.none() | st.sampled_from([-86_400.0, -60.0, 0.0, 60.0, 86_400.0]),
)


class Deployment(FoldingConvex):
    """What recovery needs of a client, beside the calls."""

    url = URL
    token = None
    busy_after: int | None = None
    """Calls that still go well before one is refused."""

    def with_token(self, token: object) -> Deployment:
        return self

    async def aclose(self) -> None:
        pass

    async def mutation(
        self,
        function: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        if self.busy_after is not None:
            self.busy_after -= 1
            if self.busy_after < 0:
                self.busy_after = None
                raise BusyError("sessions:record", status=503)
        return await super().mutation(function, args, timeout_s=timeout_s)


class Run:
    """A run as its process holds it, and what the model knows of it."""

    def __init__(self, outbox: Outbox, clock: RunClock) -> None:
        self.outbox = outbox
        self.clock = clock
        self.ended = False

    @property
    def id(self) -> str:
        return self.outbox.journal.header.run_id


class OutboxMachine(RuleBasedStateMachine):
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="outbox-model-"))
        self.loop = asyncio.new_event_loop()
        self.convex = Deployment()
        self.appended: dict[str, list[str]] = {}
        self.wall_ahead_s = 0.0
        self.steady_s = 0.0

    def teardown(self) -> None:
        try:
            self.everything_arrives()
        finally:
            self.loop.close()
            shutil.rmtree(self.directory)

    def run_now(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def wall(self) -> float:
        return NOW + self.steady_s + self.wall_ahead_s

    # What may happen

    # Few runs, so that much happens to each.
    @precondition(lambda self: len(self.appended) < 5)
    @rule(target=runs)
    def a_run_begins(self) -> Run:
        run_id = f"run_{len(self.appended)}"
        self.appended[run_id] = []
        clock = RunClock(wall=self.wall, steady=lambda: self.steady_s)
        return Run(Outbox.open(self.directory, header(run_id)), clock)

    @rule(run=runs, sentences=st.lists(SENTENCE, min_size=3, max_size=12))
    def something_is_said(self, run: Run, sentences: list[tuple[int, float, float | None]]) -> None:
        if run.ended:
            return
        for size, passed_s, clock_set_to_s in sentences:
            self.steady_s += passed_s
            if clock_set_to_s is not None:
                self.wall_ahead_s = clock_set_to_s
            item_id = f"{run.id}:{len(self.appended[run.id])}"
            said_at = run.clock.place(self.wall())
            run.outbox.append(message(item_id, "x" * size, created_at=said_at))
            self.appended[run.id].append(item_id)

    @rule(run=runs)
    def a_run_ends(self, run: Run) -> None:
        if not run.ended:
            run.outbox.append(RunEndedRecord(created_at=run.clock.now(), reason="done"))
            run.outbox.close()
            run.ended = True

    @rule(run=runs)
    def it_is_delivered(self, run: Run) -> None:
        self.run_now(Sender(run.outbox.journal, self.convex, outbox=run.outbox).drain())

    @rule(target=runs, run=consumes(runs), torn=st.integers(0, 40), forget=st.booleans())
    def its_process_dies(self, run: Run, torn: int, forget: bool) -> Any:
        """In the middle of a write, and with what it has confirmed on disk or not."""
        path = run.outbox.journal.path
        run.outbox.journal._let_go()
        if torn:
            with path.open("ab") as file:
                file.write(b'deadbeef {"seq":9,"kind":"message","createdAt":1'[:torn])
        if forget:
            path.with_suffix(CONFIRMED_SUFFIX).unlink(missing_ok=True)
        return multiple()

    @rule()
    def a_worker_sweeps(self) -> None:
        self.run_now(self.recovery().sweep())

    @rule()
    def two_workers_sweep_at_once(self) -> None:
        async def both() -> None:
            await asyncio.gather(self.recovery().sweep(), self.recovery().sweep())

        self.run_now(both())

    @rule(calls=st.integers(0, 2))
    def convex_will_be_busy(self, calls: int) -> None:
        """At once, or in the middle of a delivery."""
        self.convex.busy_after = calls

    @rule()
    def an_answer_is_lost(self) -> None:
        self.convex.after.append(TransportError("sessions:record: the connection was lost"))

    @rule(data=st.data())
    def a_batch_comes_again(self, data: st.DataObject) -> None:
        """As from a worker that was thought dead."""
        told = [run_id for run_id, rows in self.convex.rows.items() if rows]
        if not told:
            return
        run_id = data.draw(st.sampled_from(told))
        rows = self.convex.rows[run_id]
        start = data.draw(st.integers(0, len(rows) - 1))
        self.convex._fold(1, run_id, rows[start : start + 64])

    # What always holds

    @invariant()
    def convex_has_a_beginning_of_what_was_said(self) -> None:
        for run_id, items in self.appended.items():
            stored = self.stored(run_id)
            assert stored == items[: len(stored)]

    @invariant()
    def times_of_a_run_do_not_go_back(self) -> None:
        for rows in self.convex.rows.values():
            at = [row["createdAt"] for row in rows if row["kind"] == "message"]
            assert all(later >= at_ms - TOLERANCE_S * 1000 for at_ms, later in pairwise(at))

    def everything_arrives(self) -> None:
        """All processes are gone, Convex is well: a few sweeps later nothing waits any more."""
        self.convex.busy_after = None
        self.convex.after.clear()
        for journal in list(_OPEN):
            if journal.path.parent == self.directory:
                journal._let_go()
        for _ in range(3):
            self.run_now(self.recovery().sweep())
        for run_id, items in self.appended.items():
            assert self.stored(run_id) == items
            assert [row["kind"] for row in self.convex.rows[run_id]][-1] == "runEnded"
        assert list(self.directory.glob(f"*{SUFFIX}")) == []
        self.times_of_a_run_do_not_go_back()

    def stored(self, run_id: str) -> list[str]:
        rows = self.convex.rows.get(run_id, [])
        return [row["itemId"] for row in rows if row["kind"] == "message"]

    def recovery(self) -> Recovery:
        return Recovery(self.convex, directory=self.directory)  # type: ignore[arg-type]


def test_whatever_happens_convex_has_each_record_once_and_in_order() -> None:
    run_state_machine_as_test(
        OutboxMachine,
        settings=settings(
            max_examples=100,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
