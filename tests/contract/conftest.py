"""The deployments that one suite runs against: the fake, convex-local, and a real one on request.

All three are used through their address and the agent's key alone. What only some can do, such
as failing on request, is a method here that skips the test elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Literal

import jwt
import pytest
from livekit.plugins import convex

from convex import ConvexError
from emma_agent.convex_local import ConvexLocal
from livekit.plugins.convex.testing import FakeConvex

Fault = Literal["drop_reply", "unavailable", "hang", "delay"]
ISSUER = "https://emma.invalid/agent"


class Deployment:
    """A deployment that trusts `key`. This one is real: nothing goes wrong there on request."""

    def __init__(self, url: str, key: convex.AgentKey) -> None:
        self._url = url
        self.key = key

    @property
    def url(self) -> str:
        return self._url

    def guest(self) -> convex.AsyncConvexClient:
        """A client for a guest of its own, whose rows no other test sees."""
        token = convex.AgentToken(self.key, subject=f"guest:{uuid.uuid4()}")
        return convex.AsyncConvexClient(self.url, token=token, timeout_s=20.0)

    async def fail_next(self, fault: Fault, function: str, *, delay_s: float = 0.0) -> None:
        """Let the next call of `function` go wrong."""
        pytest.skip("a real deployment does not fail on request")

    async def restart(self) -> None:
        """Go away and come back at the same address, with the same rows."""
        pytest.skip("a real deployment is not restarted by a test")


class LocalDeployment(Deployment):
    """convex-local with the project's own functions."""

    def __init__(self, db: Path | str) -> None:
        self._db = db
        self._local = ConvexLocal.start(db=db, faults=True)
        self._local.wait_ready()
        super().__init__(self._local.url, self._local.agent_key)

    async def fail_next(self, fault: Fault, function: str, *, delay_s: float = 0.0) -> None:
        body = {"kind": fault, "path": function, "times": 1, "delayMs": delay_s * 1000}
        await asyncio.to_thread(self._ask, "POST", body)

    async def restart(self) -> None:
        port = int(self.url.rpartition(":")[2])
        await asyncio.to_thread(self._local.close)
        self._local = ConvexLocal.start(db=self._db, port=port, agent_key=self.key, faults=True)
        await asyncio.to_thread(self._local.wait_ready)

    def clear(self) -> None:
        self._ask("DELETE", None)

    def close(self) -> None:
        self._local.close()

    def _ask(self, method: str, body: Mapping[str, object] | None) -> None:
        request = urllib.request.Request(
            f"{self.url}/_local/faults",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Convex {self._local.admin_key}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=10):
            pass


class FakeDeployment(Deployment):
    """FakeConvex with as much of the project's functions as the suite calls."""

    def __init__(self, fake: FakeConvex, key: convex.AgentKey) -> None:
        self._fake = fake
        super().__init__(fake.url, key)
        self._messages: dict[str, list[object]] = {}
        self._last: dict[str, float] = {}
        fake.on("sessions:recordVersions", self._record_versions)
        fake.on("sessions:record", self._record)
        fake.on("messages:list", self._list)
        fake.on("sessions:plan", lambda _: {"preferences": {"speechRate": 1}, "lesson": None})
        fake.on("students:tutoringContext", self._tutoring_context)

    async def fail_next(self, fault: Fault, function: str, *, delay_s: float = 0.0) -> None:
        match fault:
            case "drop_reply":
                self._fake.drop_next_reply(function)
            case "unavailable":
                self._fake.fail_next(503, function)
            case "hang":
                self._fake.hang_next(function)
            case "delay":
                self._fake.delay_next(delay_s, function)

    async def restart(self) -> None:
        await self._fake.stop()
        await self._fake.start()

    def _record_versions(self, args: object) -> list[int]:
        if self._fake.calls[-1].token is None:
            raise ConvexError("", {"code": "unauthenticated", "message": "A token is needed."})
        return [1]

    async def _record(self, args: convex.ConvexValue) -> dict[str, float]:
        match args:
            case {"version": 1.0, "runId": str(run_id), "records": list(records), **rest} if (
                not rest
            ):
                pass
            case _:
                raise TypeError("ArgumentValidationError")
        last = self._last.get(run_id, -1.0)
        for record in records:
            assert isinstance(record, dict)
            seq = record["seq"]
            assert isinstance(seq, float)
            if seq > last + 1:
                raise ConvexError("", {"code": "gap", "message": "gap", "expected": last + 1})
            if seq == last + 1:
                last = seq
                self._keep(run_id, record)
        self._last[run_id] = last
        await self._fake.set_query("messages:list", self._list)
        return {"seq": last}

    def _keep(self, run_id: str, record: dict[str, convex.ConvexValue]) -> None:
        if record["kind"] == "message":
            kept = {name: record[name] for name in ("itemId", "role", "text", "seq")}
            self._messages.setdefault(run_id, []).append(kept)

    def _list(self, args: dict[str, convex.ConvexValue]) -> dict[str, object]:
        page = self._messages.get(str(args["sessionKey"]), [])
        return {"page": list(page), "isDone": True, "continueCursor": ""}

    def _tutoring_context(self, args: object) -> None:
        raise ConvexError("", {"code": "student_unknown", "message": "No such student."})


@pytest.fixture(scope="session")
def convex_local() -> Iterator[LocalDeployment]:
    """One convex-local for all tests that share it; each uses a guest of its own."""
    local = LocalDeployment(":memory:")
    yield local
    local.close()


@pytest.fixture(
    params=["fake", "convex-local", pytest.param("real", marks=pytest.mark.deployment)],
)
async def deployment(request: pytest.FixtureRequest) -> AsyncIterator[Deployment]:
    match request.param:
        case "fake":
            key = convex.AgentKey.generate(issuer=ISSUER)
            async with FakeConvex(accepts=lambda token: _is_signed_by(key, token)) as fake:
                yield FakeDeployment(fake, key)
        case "convex-local":
            local: LocalDeployment = request.getfixturevalue("convex_local")
            yield local
            await asyncio.to_thread(local.clear)
        case _:
            yield Deployment(_real_url(), convex.AgentKey.from_env())


@pytest.fixture(params=["fake", "convex-local"])
async def own_deployment(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Deployment]:
    """One that the test may restart."""
    if request.param == "fake":
        key = convex.AgentKey.generate(issuer=ISSUER)
        async with FakeConvex(accepts=lambda token: _is_signed_by(key, token)) as fake:
            yield FakeDeployment(fake, key)
        return
    local = await asyncio.to_thread(LocalDeployment, tmp_path / "convex.sqlite3")
    yield local
    await asyncio.to_thread(local.close)


def _real_url() -> str:
    url = os.environ.get("CONVEX_URL", "")
    if not url:
        pytest.skip("no CONVEX_URL: run `make verify CONVEX_URL=https://…`")
    return url


def _is_signed_by(key: convex.AgentKey, token: str | None) -> bool:
    """As a deployment checks it: nobody may call (and is nobody), a bad token may not."""
    if token is None:
        return True
    try:
        jwt.decode(
            token,
            serialized_public_key(key),
            algorithms=["ES256"],
            audience="convex",
            issuer=key.issuer,
            leeway=5,
        )
    except jwt.InvalidTokenError:
        return False
    return True


def serialized_public_key(key: convex.AgentKey) -> jwt.PyJWK:
    with urllib.request.urlopen(key.jwks_data_uri()) as document:
        return jwt.PyJWKSet.from_dict(json.load(document)).keys[0]
