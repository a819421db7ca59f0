"""Which records a session's tool calls become: each call once, and its result when it is late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from livekit.agents.llm import ChatContext, FunctionCall, FunctionCallOutput
from livekit.agents.voice.events import (
    FunctionToolsExecutedEvent,
    ToolCallEnded,
    ToolCallStarted,
    ToolExecutionUpdatedEvent,
)

from .clock import RunClock
from .records import ToolCallRecord


@dataclass(slots=True)
class _Call:
    """A call between its start and what is told of it last.

    Attributes:
        seq: of its first record; None if there is none, or if it could not be stored.
        recorded: there was something to record: its batch has come, or its late result.
        ended: how it ended, while its batch is still to come.
    """

    function_call: FunctionCall
    seq: int | None = None
    recorded: bool = False
    ended: ToolCallEnded | None = None


class ToolCalls:
    """Puts together what LiveKit tells of a tool call in up to four events.

    `function_tools_executed` comes once per batch, when every call of it has answered the model. A
    tool that calls `ctx.update()` answers with that report, and its result is in no event but
    `tool_execution_updated`; if another tool of its batch is slower, even before the batch. A call
    that the end of the session cuts off is in no batch.

    Args:
        record: stores a record; returns its `seq`, or None if it could not be stored.
    """

    def __init__(self, record: Callable[[ToolCallRecord], int | None], clock: RunClock) -> None:
        self._record = record
        self._clock = clock
        self._calls: dict[str, _Call] = {}

    def on_executed(self, event: FunctionToolsExecutedEvent) -> None:
        """The calls of a batch have answered the model."""
        for function_call, output in event.zipped():
            call = self._calls.get(function_call.call_id)
            if call is None:
                self._store(function_call, output)  # refused before it began
                continue
            if not call.recorded:
                call.seq, call.recorded = self._store(function_call, output), True
            if call.ended is not None:
                del self._calls[function_call.call_id]

    def on_updated(self, event: ToolExecutionUpdatedEvent, history: ChatContext) -> None:
        """A call has begun or ended.

        Args:
            history: the session's, where a late result is before it is announced.
        """
        update = event.update
        if isinstance(update, ToolCallStarted):
            self._calls[update.function_call.call_id] = _Call(update.function_call)
        elif isinstance(update, ToolCallEnded):
            call = self._calls.get(update.call_id)
            if call is None:
                return
            if call.recorded:
                del self._calls[update.call_id]
            else:
                call.ended = update
            if update.id != update.call_id:
                self._on_late_result(call, update, event.created_at, history)

    def _on_late_result(
        self, call: _Call, ended: ToolCallEnded, at: float, history: ChatContext
    ) -> None:
        # As the model was told: the event has the text of any exception, which may quote anything.
        output = _output_in(history, ended.id)
        failed = ended.status != "done"
        if call.recorded:
            self._store(call.function_call, output, failed=failed, at=at, result_of=call.seq)
        else:
            call.recorded = True
            self._store(call.function_call, output, failed=failed)

    def on_close(self) -> None:
        """The session is over: what no batch told of was cut off with it."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.recorded:
                failed = call.ended is None or call.ended.status != "done"
                self._store(call.function_call, None, failed=failed)

    def _store(
        self,
        call: FunctionCall,
        output: FunctionCallOutput | None,
        *,
        failed: bool = False,
        at: float | None = None,
        result_of: int | None = None,
    ) -> int | None:
        created_at = self._clock.place(call.created_at if at is None else at)
        return self._record(
            ToolCallRecord.from_call(
                call, output, created_at=created_at, result_of=result_of, failed=failed
            )
        )


def _output_in(history: ChatContext, call_id: str) -> FunctionCallOutput | None:
    for item in reversed(history.items):
        if isinstance(item, FunctionCallOutput) and item.call_id == call_id:
            return item
    return None
