"""A `sessions:record` that remembers: what a deployment would have been told, in order."""

from __future__ import annotations

import asyncio
from typing import Any

from convex import ConvexError
from livekit.plugins.convex.testing import FakeConvex


class Folded:
    """Accepts records as the fold does: repeats skipped, a gap refused.

    Attributes:
        records: by run, in order.
        told: set once the first record has come.
    """

    def __init__(self, convex: FakeConvex) -> None:
        self.records: dict[str, list[dict[str, Any]]] = {}
        self.told = asyncio.Event()
        convex.on("sessions:record", self._record)
        convex.on("sessions:recordVersions", lambda args: [1.0])

    @property
    def only_run(self) -> list[dict[str, Any]]:
        """The records of the one run there was."""
        [records] = self.records.values()
        return records

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind, of the one run there was."""
        return [record for record in self.only_run if record["kind"] == kind]

    def said(self) -> list[tuple[str, str]]:
        """Who said what."""
        return [(record["role"], record["text"]) for record in self.of_kind("message")]

    def _record(self, args: dict[str, Any]) -> dict[str, Any]:
        run = self.records.setdefault(args["runId"], [])
        for record in args["records"]:
            if record["seq"] > len(run):
                raise ConvexError("gap", {"code": "gap", "message": "…", "expected": len(run)})
            if record["seq"] == len(run):
                run.append(record)
        self.told.set()
        return {"seq": len(run) - 1}
