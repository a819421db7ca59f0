"""The official Python clients, unmodified, against convex-local.

Each test runs its client in a process of its own: `ConvexClient` holds the interpreter lock
while it waits and can freeze its process for good, and then only a kill from outside helps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import pytest

from emma_agent.convex_local import ROOT, ConvexLocal
from livekit.plugins.convex import AgentKey, AgentToken

FIXTURE = ROOT / "plugins" / "convex-local" / "test" / "fixtures" / "conformance"

Kind = Literal["ConvexClient", "ConvexHttpClient"]
both_clients = pytest.mark.parametrize("kind", ["ConvexClient", "ConvexHttpClient"])

PRELUDE = """
import json, sys
from convex import ConvexClient, ConvexError, ConvexInt64, json_to_convex
from convex.http_client import ConvexHttpClient

given = json.loads(sys.argv[1])
LIST = given["list"]
client = {"ConvexClient": ConvexClient, "ConvexHttpClient": ConvexHttpClient}[given["kind"]](
    given["url"]
)

def say(value):
    print(json.dumps(value), flush=True)

def wait():
    sys.stdin.readline()
"""


class Script:
    """A client's process; it `say`s JSON lines and `wait`s for ours."""

    def __init__(self, source: str, *, timeout_s: float, **given: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + source, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # A frozen client answers nothing, not even a signal's handler.
        self._deadline = threading.Timer(timeout_s, self._process.kill)
        self._deadline.daemon = True
        self._deadline.start()

    def said(self) -> Any:
        """The next value the script says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            assert self._process.stderr is not None
            pytest.fail(f"the client ended with {code}: {self._process.stderr.read()}")
        return json.loads(line)

    def go(self) -> None:
        """Let the script go on from `wait()`."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._deadline.cancel()
        self._process.kill()
        self._process.communicate()


class Deployment:
    """convex-local with the conformance fixture; can be killed and brought back."""

    def __init__(self, db: Path) -> None:
        self._db = db
        self._key = AgentKey.generate()
        self._port = 0
        self._local = self._start()
        self._port = int(self.url.rsplit(":", 1)[1])

    def _start(self) -> ConvexLocal:
        local = ConvexLocal.start(
            project=FIXTURE,
            db=self._db,
            port=self._port,
            env={
                "TEST_JWT_ISSUER": self._key.issuer,
                "TEST_JWKS": self._key.jwks_data_uri(),
            },
            faults=True,
        )
        local.wait_ready()
        return local

    @property
    def url(self) -> str:
        return self._local.url

    def stop(self) -> None:
        self._local.close()

    def resume(self) -> None:
        """Bring it back at the same address."""
        self._local = self._start()

    def token(self, subject: str) -> str:
        return AgentToken(self._key, subject=subject).value()

    def _call(self, method: str, path: str, body: object | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Convex {self._local.admin_key}",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def fault(self, **fault: object) -> None:
        self._call("POST", "/_local/faults", fault)

    def clear_faults(self) -> None:
        self._call("DELETE", "/_local/faults")

    def notes(self, name: str) -> list[str]:
        reply = self._call("POST", "/api/query", {"path": "notes:list", "args": {"list": name}})
        notes: list[str] = reply["value"]
        return notes

    def add(self, name: str, text: str) -> None:
        args = {"list": name, "text": text}
        self._call("POST", "/api/mutation", {"path": "notes:add", "args": args})

    @contextmanager
    def script(
        self, kind: Kind, name: str, source: str, *, timeout_s: float = 30.0
    ) -> Iterator[Script]:
        given = {
            "url": self.url,
            "kind": kind,
            "list": name,
            "token": self.token("ada"),
            "adminKey": self._local.admin_key,
        }
        with Script(source, timeout_s=timeout_s, **given) as script:
            yield script


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("conformance") / "db.sqlite3")
    yield deployment
    deployment.stop()


@pytest.fixture
def name(deployment: Deployment) -> Iterator[str]:
    """A list of notes of this test's own."""
    yield str(uuid.uuid4())
    deployment.clear_faults()


@both_clients
def test_queries_mutations_and_actions(deployment: Deployment, name: str, kind: Kind) -> None:
    source = """
client.mutation("notes:add", {"list": LIST, "text": "a"})
say(client.action("notes:addByAction", {"list": LIST, "text": "b"}))
say(client.query("notes:list", {"list": LIST}))
"""
    with deployment.script(kind, name, source) as script:
        assert script.said() == 2
        assert script.said() == ["a", "b"]


@both_clients
def test_convex_error_keeps_its_data(deployment: Deployment, name: str, kind: Kind) -> None:
    source = """
try:
    client.mutation("notes:addAndRefuse", {"list": LIST})
except ConvexError as error:
    data = dict(error.data)
    # The HTTP client hands out a ConvexError's data as it came over the wire.
    raw = given["kind"] == "ConvexHttpClient"
    data["limit"] = (json_to_convex(data["limit"]) if raw else data["limit"]).value
    say(data)
try:
    client.query("notes:longest", {"list": LIST})
except ConvexError as error:
    say(error.data)
try:
    client.query("values:crash")
except ConvexError:
    say("a ConvexError")
except Exception as error:
    say("another error")
"""
    with deployment.script(kind, name, source) as script:
        assert script.said() == {"code": "refused", "limit": 5, "where": {"list": name}}
        assert script.said() == {"code": "empty", "list": name}
        assert script.said() == "another error"
    assert deployment.notes(name) == []


@both_clients
def test_jwt_is_the_callers_identity(deployment: Deployment, name: str, kind: Kind) -> None:
    source = """
say(client.query("people:whoami"))
client.set_auth(given["token"])
say(client.query("people:whoami")["subject"])
say(client.mutation("people:whoamiMutation"))
say(client.action("people:whoamiAction"))
"""
    with deployment.script(kind, name, source) as script:
        assert script.said() is None
        assert [script.said() for _ in range(3)] == ["ada"] * 3


@both_clients
def test_admin_key_opens_internal_functions(deployment: Deployment, name: str, kind: Kind) -> None:
    source = """
try:
    client.query("people:hidden")
except Exception as error:
    say("refused")
client.set_admin_auth(given["adminKey"])
say(client.query("people:hidden"))
"""
    with deployment.script(kind, name, source) as script:
        assert script.said() == "refused"
        assert script.said() == "for admins"


@both_clients
@pytest.mark.parametrize(
    ("call", "function"),
    [("query", "echoQuery"), ("mutation", "echoMutation"), ("action", "echoAction")],
)
def test_values_come_back_as_they_went(
    deployment: Deployment, name: str, kind: Kind, call: str, function: str
) -> None:
    source = f"""
import math
value = {{
    "int64": ConvexInt64(2**63 - 1),
    "negative": ConvexInt64(-5),
    "bytes": b"\\x00\\x01\\xff",
    "nested": {{"array": [None, True, 1.5, "späť 🎓", {{"deep": [[]]}}]}},
    "infinite": [math.inf, -math.inf],
    "empty": {{}},
}}
back = client.{call}("values:{function}", {{"value": value}})
say(back == value)
back = client.{call}("values:{function}", {{"value": [math.nan, -0.0]}})
say(math.isnan(back[0]) and math.copysign(1, back[1]) == -1)
"""
    with deployment.script(kind, name, source) as script:
        assert script.said() is True
        assert script.said() is True


@both_clients
def test_pages_follow_each_other(deployment: Deployment, name: str, kind: Kind) -> None:
    source = """
texts = [f"n{index}" for index in range(7)]
client.mutation("notes:addMany", {"list": LIST, "texts": texts})
seen, cursor, done = [], None, False
while not done:
    page = client.query(
        "notes:page", {"list": LIST, "paginationOpts": {"numItems": 3, "cursor": cursor}}
    )
    seen += [note["text"] for note in page["page"]]
    cursor, done = page["continueCursor"], page["isDone"]
say(seen)
"""
    with deployment.script(kind, name, source) as script:
        assert script.said() == [f"n{index}" for index in range(7)]


@pytest.mark.parametrize(
    "waiting", ["for value in subscription", "async for value in subscription"]
)
def test_convex_client_subscription_is_live(
    deployment: Deployment, name: str, waiting: str
) -> None:
    source = f"""
import asyncio

async def main():
    subscription = client.subscribe("notes:list", {{"list": LIST}})
    {waiting}:
        say(value)

asyncio.run(main())
"""
    with deployment.script("ConvexClient", name, source) as script:
        assert script.said() == []
        deployment.add(name, "a")
        assert script.said() == ["a"]
        deployment.add(name, "b")
        assert script.said() == ["a", "b"]


def test_convex_client_applies_a_mutation_twice_when_its_reply_is_lost(
    deployment: Deployment, name: str
) -> None:
    """What the client does, not what one would wish: it comes back as a new session.

    So the deployment cannot know the repeat. A function that is called by this client has to be
    safe to repeat.
    """
    source = """
client.query("notes:list", {"list": LIST})
say("connected")
wait()
client.mutation("notes:add", {"list": LIST, "text": "x"})
say("done")
"""
    with deployment.script("ConvexClient", name, source, timeout_s=60.0) as script:
        assert script.said() == "connected"
        deployment.fault(kind="drop_reply", path="notes:add", times=1)
        script.go()
        assert script.said() == "done"
    assert deployment.notes(name) == ["x", "x"]


def test_convex_http_client_raises_when_a_reply_is_lost(deployment: Deployment, name: str) -> None:
    source = """
try:
    client.mutation("notes:add", {"list": LIST, "text": "x"})
except Exception as error:
    say(type(error).__name__)
"""
    deployment.fault(kind="drop_reply", path="notes:add", times=1)
    with deployment.script("ConvexHttpClient", name, source) as script:
        assert script.said() == "ConnectionError"
    assert deployment.notes(name) == ["x"]


def test_convex_http_client_names_the_code_of_a_refusal(deployment: Deployment, name: str) -> None:
    source = """
for _ in range(2):
    try:
        say(client.query("notes:list", {"list": LIST}))
    except Exception as error:
        say(str(error))
client.set_auth("nonsense")
try:
    client.query("people:whoami")
except Exception as error:
    say(str(error))
"""
    deployment.fault(kind="unavailable", path="notes:list", times=1)
    with deployment.script("ConvexHttpClient", name, source) as script:
        assert script.said().startswith("503 TooManyConcurrentRequests: ")
        assert script.said() == []
        assert script.said().startswith("401 InvalidAuthHeader: ")


def test_convex_client_goes_on_after_a_restart(deployment: Deployment, name: str) -> None:
    source = """
subscription = client.subscribe("notes:list", {"list": LIST})
say(next(subscription))
wait()
client.mutation("notes:add", {"list": LIST, "text": "after"})
for value in subscription:
    if "after" in value:
        say(value)
        break
"""
    deployment.add(name, "before")
    with deployment.script("ConvexClient", name, source, timeout_s=90.0) as script:
        assert script.said() == ["before"]
        deployment.stop()
        deployment.resume()
        script.go()
        assert script.said() == ["before", "after"]


def test_convex_http_client_goes_on_after_a_restart(deployment: Deployment, name: str) -> None:
    source = """
client.mutation("notes:add", {"list": LIST, "text": "before"})
say("added")
wait()
say(client.query("notes:list", {"list": LIST}))
"""
    with deployment.script("ConvexHttpClient", name, source) as script:
        script.said()
        deployment.stop()
        deployment.resume()
        script.go()
        assert script.said() == ["before"]
