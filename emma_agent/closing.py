"""The one line a lesson ends with: counts and latencies, nobody's words."""

from __future__ import annotations

import statistics
import time

from livekit.agents import JobContext, llm

__all__ = ["closing_line"]


def closing_line(ctx: JobContext, *, undelivered: int) -> dict[str, object]:
    """The fields of `session.closed`.

    Args:
        undelivered: records that stay on disk for a later delivery.
    """
    try:
        history = ctx.primary_session.history
    except RuntimeError:
        # The job ended before its session began.
        return {"started": False, "pending": undelivered}
    messages = history.messages()
    answers = [message for message in messages if message.role == "assistant"]
    latencies_s = [
        latency for answer in answers if (latency := answer.metrics.get("e2e_latency")) is not None
    ]
    first = min((item.created_at for item in history.items), default=time.time())
    return {
        "started": True,
        "duration_s": round(time.time() - first, 1),
        "student_messages": sum(message.role == "user" for message in messages),
        "emma_messages": len(answers),
        "interrupted": sum(answer.interrupted for answer in answers),
        "tool_calls": sum(isinstance(item, llm.FunctionCall) for item in history.items),
        "median_latency_s": round(statistics.median(latencies_s), 3) if latencies_s else None,
        "max_latency_s": round(max(latencies_s), 3) if latencies_s else None,
        "pending": undelivered,
    }
