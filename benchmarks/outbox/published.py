"""A published recorder of LiveKit sessions that can be pointed at a local endpoint.

It is no dependency of this project: install it apart and say where.

    pip install --target /tmp/recorders --no-deps zizkadb-livekit
    pip install --target /tmp/recorders zizkadb-sdk
    python -m benchmarks.outbox --published /tmp/recorders

Not here: `livekit-plugins-hamming` reads the token of a real job, which a measured process has not,
and sends one report at the end; `zep-livekit` and `hindsight-livekit` are agents with a memory of
their own, which see a turn only when their own `Agent` class holds it, and record no session.
"""

from __future__ import annotations

import importlib
import json
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from livekit.agents import AgentSession, JobContext

Ending = Callable[[float], Awaitable[object]]
_SENTENCE = re.compile(r"Sentence (\d+)\.")


class Sink:
    """Stands for the service of its maker: takes everything, answers as that does.

    Attributes:
        url: its address.
    """

    def __init__(self) -> None:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                sink._answer(self, body.decode("utf-8", "replace"))

            def do_GET(self) -> None:
                sink._answer(self, "")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._fault: dict[str, Any] = {}
        self._bodies: list[str] = []

    def fail(self, **fault: Any) -> None:
        """Go wrong in this way from now on, as convex-local does; without one, in none."""
        self._fault = fault

    def take_items(self) -> list[str]:
        """Ids of the messages that came since the last call, in the order of arrival."""
        bodies, self._bodies = self._bodies, []
        numbers = [int(number) for body in bodies for number in _SENTENCE.findall(body)]
        return [f"item_{number:06d}" for number in numbers]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, body: str) -> None:
        fault = self._fault if random.random() < self._fault.get("probability", 1.0) else {}
        match fault.get("kind"):
            case "unavailable":
                request.send_response(503)
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            case "delay":
                time.sleep(fault["delayMs"] / 1000)
            case "drop_reply":
                self._bodies.append(body)
                request.close_connection = True
                request.connection.close()
                return
        self._bodies.append(body)
        reply = {
            "event_id": f"event_{len(self._bodies)}",
            "timestamp": datetime.now(UTC).isoformat(),
            "sequence_no": len(self._bodies),
            "checksum": "",
            "ok": True,
        }
        data = json.dumps(reply).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


def attach_zizkadb(
    session: AgentSession[Any], ctx: JobContext, url: str, session_key: str
) -> Ending:
    """A queue in memory, one writer; as its page says."""
    client = importlib.import_module("zizkadb").ZizkaDB(host=url)
    made = importlib.import_module("zizkadb_livekit")
    observer = made.ZizkaDBLiveKitObserver(client, agent="bench", session_id=session_key)
    observer.attach(session, job_ctx=ctx)

    async def end(timeout_s: float) -> None:
        await observer.aclose(timeout=timeout_s)

    return end
