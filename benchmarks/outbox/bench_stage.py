"""Convex on this machine with the rivals' function in it, and the processes that are measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.outbox.published import Sink
from benchmarks.outbox.ways import PUBLISHED, RIVAL_TABLE, RIVAL_TS, Way
from emma_agent.convex_local import ROOT, ConvexLocal, copy_functions
from emma_agent.demo.livekit_server import free_port


@dataclass
class BenchStage:
    """`set_up` makes it."""

    convex: ConvexLocal
    directory: Path
    sink: Sink
    published: Path | None = None
    """Where the published recorders are installed."""
    _runs: int = 0

    @classmethod
    @contextmanager
    def set_up(cls, published: Path | None = None) -> Iterator[BenchStage]:
        with tempfile.TemporaryDirectory(prefix="emma-bench-") as folder:
            project = Path(folder) / "project"
            copy_functions(project)
            (project / "convex" / "rival.ts").write_text(RIVAL_TS)
            schema = project / "convex" / "schema.ts"
            text = schema.read_text().rstrip()
            assert text.endswith("});")
            schema.write_text(text.removesuffix("});") + RIVAL_TABLE)
            database = Path(folder) / "convex.sqlite3"
            with (
                ConvexLocal.start(project=project, db=database, faults=True) as convex,
                Sink() as sink,
            ):
                yield cls(convex, Path(folder), sink, published)

    def measure(
        self,
        measurement: str,
        way: Way,
        *,
        dead: bool = False,
        timeout_s: float = 120.0,
        **asked: Any,
    ) -> dict[str, Any] | None:
        """What the child has found; None if it stopped for good and had to be ended."""
        child = self.start(measurement, way, dead=dead, **asked)
        try:
            found, _ = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return None
        assert child.returncode == 0, f"{measurement} of {way} ended with {child.returncode}"
        answer: dict[str, Any] = json.loads(found.splitlines()[-1])
        return answer

    def start(
        self, measurement: str, way: Way, *, dead: bool = False, **asked: Any
    ) -> subprocess.Popen[bytes]:
        """The child that measures; with a deployment that is not there, if `dead`."""
        self._runs += 1
        arguments = {
            "way": way,
            "url": f"http://127.0.0.1:{free_port()}" if dead else self._url_for(way),
            "outbox": str(self.outbox_of(self._runs)),
            **asked,
        }
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.outbox.child",
                measurement,
                json.dumps(arguments),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "BENCH_AGENT_KEY": self.convex.agent_key.pem(),
                # What a recorder spills to the user's home shall not outlive the measurement.
                "HOME": str(self.directory),
                **({"PYTHONPATH": str(self.published)} if way in PUBLISHED else {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    @property
    def last_outbox(self) -> Path:
        """The journals of the child that was started last."""
        return self.outbox_of(self._runs)

    def outbox_of(self, run: int) -> Path:
        return self.directory / f"outbox-{run}"

    def fail(self, **fault: Any) -> None:
        """Let calls go wrong in this way from now on; without one, in none."""
        self._ask("DELETE", "/_local/faults", None)
        self.sink.fail(**fault)
        if fault:
            self._ask("POST", "/_local/faults", fault)

    def _url_for(self, way: Way) -> str:
        return self.sink.url if way in PUBLISHED else self.convex.url

    def calls(self, function: str) -> int:
        """How often the function was called so far."""
        counted = self._ask("GET", "/_local/calls", None)
        return int(counted.get(function, {}).get("calls", 0))

    def held(self, way: Way, session_key: str) -> list[str]:
        """Ids of the messages that are stored, in the order in which readers see them."""
        if way in PUBLISHED:
            return self.sink.take_items()
        body = {
            "path": "rival:ours" if way == "recorder" else "rival:held",
            "args": {"sessionKey": session_key},
            "format": "json",
        }
        answer = self._ask("POST", "/api/function", body)
        assert answer["status"] == "success", answer
        return [str(item) for item in answer["value"]]

    def _ask(self, method: str, path: str, body: object) -> Any:
        request = urllib.request.Request(
            f"{self.convex.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Convex {self.convex.admin_key}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            text = reply.read()
        return json.loads(text) if text else None


def end(child: subprocess.Popen[bytes], signal_: signal.Signals = signal.SIGKILL) -> list[str]:
    """End the child; return the lines that it had written."""
    child.send_signal(signal_)
    said, _ = child.communicate()
    return [line.decode() for line in said.split(b"\n")[:-1]]
