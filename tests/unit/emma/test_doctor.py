"""`doctor`: each thing that can be wrong has its own line, state and remedy."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from livekit import api

from emma_agent import server
from emma_agent.doctor import Check, examine
from emma_agent.known_context import KnownContext, keep
from emma_agent.settings import Settings
from livekit.plugins.convex import AgentKey
from livekit.plugins.convex.testing import FakeConvex
from tests.support.commands import clean_environment, run, run_beside
from tests.support.wire import tutoring_context

GIB = 1024**3


class Cloud(NamedTuple):
    """What a worker needs, answering as `livekit` and `models` say."""

    convex: FakeConvex
    livekit: list[int]
    """The HTTP status of LiveKit's next answers; the last one stays."""
    models: dict[str, Any]
    """The status of /models, and the ids it lists."""


@pytest.fixture
async def cloud(
    monkeypatch: pytest.MonkeyPatch, convex: FakeConvex, tmp_path: Path
) -> AsyncIterator[Cloud]:
    """Everything in order, and the environment set accordingly."""
    clean_environment(monkeypatch)
    cloud = Cloud(
        convex,
        [200],
        {"status": 200, "ids": ["gpt-4o-mini-transcribe", "gpt-4.1-mini", "gpt-4o-mini-tts"]},
    )

    async def list_rooms(request: web.Request) -> web.Response:
        status = cloud.livekit[0]
        if status != 200:
            return web.json_response({"code": "unauthenticated", "msg": "no"}, status=status)
        body = api.ListRoomsResponse().SerializeToString()
        return web.Response(body=body, content_type="application/protobuf")

    async def models(request: web.Request) -> web.Response:
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": "us"}
            for name in cloud.models["ids"]
        ]
        return web.json_response({"object": "list", "data": listed}, status=cloud.models["status"])

    app = web.Application()
    app.router.add_post("/twirp/livekit.RoomService/ListRooms", list_rooms)
    app.router.add_get("/v1/models", models)
    convex.on("sessions:recordVersions", lambda args: [1.0])
    convex.on("sessions:record", lambda args: {"seq": -1.0})
    outbox = tmp_path / "outbox"
    outbox.mkdir(mode=0o700)
    async with TestServer(app) as there:
        for name, value in {
            "CONVEX_URL": convex.url,
            "CONVEX_AGENT_KEY": AgentKey.generate().pem(),
            "EMMA_OUTBOX_DIR": str(outbox),
            "LIVEKIT_URL": f"ws://127.0.0.1:{there.port}",
            "LIVEKIT_API_KEY": "key",
            "LIVEKIT_API_SECRET": "a secret of some length, as LiveKit asks",
            "OPENAI_API_KEY": "sk",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{there.port}/v1",
        }.items():
            monkeypatch.setenv(name, value)
        yield cloud


async def found() -> dict[str, Check]:
    checks = await examine(Settings.load(), timeout_s=2.0)
    assert all((check.remedy is None) == (check.state == "OK") for check in checks)
    return {check.name: check for check in checks}


async def wrong() -> dict[str, Check]:
    return {name: check for name, check in (await found()).items() if check.state != "OK"}


async def test_where_all_is_well_every_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cloud: Cloud
) -> None:
    assert await run_beside(monkeypatch, "doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["OK", "convex.url"],
        ["OK", "convex.key"],
        ["OK", "convex.functions"],
        ["OK", "convex.clock"],
        ["OK", "outbox.directory"],
        ["OK", "outbox.space"],
        ["OK", "outbox.disk"],
        ["OK", "outbox.contexts"],
        ["OK", "livekit.url"],
        ["OK", "livekit.key"],
        ["OK", "worker.load"],
        ["OK", "models.speech"],
        ["OK", "models.local"],
    ]
    assert [call.args for call in cloud.convex.calls if call.kind == "mutation"] == [
        {"version": 1.0, "runId": "doctor", "records": []}
    ]


async def test_json_is_for_scripts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cloud: Cloud
) -> None:
    cloud.livekit[0] = 401
    assert await run_beside(monkeypatch, "doctor", "--json") == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["livekit.key"] == {
        "name": "livekit.key",
        "state": "FAIL",
        "what": "the server refuses the API key",
        "remedy": "take LIVEKIT_API_KEY and LIVEKIT_API_SECRET from the same project as the URL",
    }


def test_without_any_setting_each_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clean_environment(monkeypatch)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert run(monkeypatch, "doctor") == 1
    out = capsys.readouterr().out
    for name in ("CONVEX_URL", "CONVEX_AGENT_KEY", "LIVEKIT_URL", "OPENAI_API_KEY"):
        assert f"{name} is not set" in out
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_cannot_be_right_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean_environment(monkeypatch)
    monkeypatch.setenv("CONVEX_URL", "http://a:99999")
    assert run(monkeypatch, "doctor") == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("FAIL settings")
    assert "CONVEX_URL (http://a:99999) is not an absolute http(s) address" in line


# Convex


async def test_a_deployment_that_is_away_is_not_asked_further(cloud: Cloud) -> None:
    await cloud.convex.stop()
    checks = await wrong()
    assert list(checks) == ["convex.url"]
    assert checks["convex.url"].state == "FAIL"
    assert "check CONVEX_URL and the network" in (checks["convex.url"].remedy or "")


async def test_what_is_no_deployment_is_named(cloud: Cloud, monkeypatch: Any) -> None:
    monkeypatch.setenv("CONVEX_URL", Settings.load().openai_base_url.removesuffix("/v1"))  # type: ignore[union-attr]
    assert "not as a Convex deployment does" in (await wrong())["convex.url"].what


async def test_a_busy_deployment_is_no_fault(cloud: Cloud) -> None:
    cloud.convex.fail_next(503, times=10)
    assert {name: check.state for name, check in (await wrong()).items()} == {"convex.url": "WARN"}


async def test_a_key_that_is_none_is_named(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVEX_AGENT_KEY", "-----BEGIN nothing")
    checks = await wrong()
    assert (list(checks), checks["convex.key"].state) == (["convex.key"], "FAIL")
    assert "`python -m emma_agent keys`" in (checks["convex.key"].remedy or "")


async def test_a_key_that_the_deployment_does_not_know_is_named(
    cloud: Cloud,
) -> None:
    cloud.convex.accepts = lambda token: False
    checks = await wrong()
    assert {name: check.state for name, check in checks.items()} == {
        "convex.key": "FAIL",
        "convex.functions": "WARN",
    }
    assert "AGENT_JWKS" in (checks["convex.key"].remedy or "")


async def test_old_functions_are_named(cloud: Cloud) -> None:
    cloud.convex.on("sessions:recordVersions", lambda args: [0.0])
    checks = await wrong()
    assert (list(checks), checks["convex.functions"].state) == (["convex.functions"], "FAIL")
    assert "npm run convex:deploy" in (checks["convex.functions"].remedy or "")


async def test_missing_functions_are_named(cloud: Cloud) -> None:
    del cloud.convex._handlers["sessions:record"]
    assert list(await wrong()) == ["convex.functions"]
    del cloud.convex._handlers["sessions:recordVersions"]
    checks = await wrong()
    assert {name: check.state for name, check in checks.items()} == {
        "convex.key": "WARN",
        "convex.functions": "FAIL",
    }


@pytest.mark.parametrize(("offset_s", "told"), [(-90.0, "ahead of"), (90.0, "behind")])
async def test_a_clock_that_is_wrong_is_named(cloud: Cloud, offset_s: float, told: str) -> None:
    cloud.convex.clock = lambda: time.time() + offset_s
    checks = await wrong()
    assert (list(checks), checks["convex.clock"].state) == (["convex.clock"], "WARN")
    assert f"s {told} the deployment's" in checks["convex.clock"].what


# The outbox


async def test_an_outbox_that_others_may_read_is_named(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "outbox").chmod(0o755)
    check = (await wrong())["outbox.directory"]
    assert (check.state, check.remedy) == ("WARN", f"`chmod 700 {tmp_path / 'outbox'}`")


@pytest.mark.parametrize(("days", "state"), [(3, "OK"), (7.5, "OK"), (9, "WARN")])
async def test_what_is_kept_of_students_is_told_and_who_they_are_is_not(
    cloud: Cloud, tmp_path: Path, days: float, state: str
) -> None:
    keep_context(tmp_path / "outbox", cloud.convex.url, days=days)
    check = (await found())["outbox.contexts"]
    assert check.state == state
    assert f": 1, 1 KiB, the oldest {days:.1f} days old" in check.what
    assert "Ana" not in str(check)
    assert (await found())["outbox.directory"].state == "OK"


def keep_context(directory: Path, url: str, *, days: float) -> None:
    known = KnownContext(
        deployment=url,
        student_id="student_1",
        lesson_id=None,
        session_key="s1",
        kept_at=time.time() - days * 86_400,
        context=tutoring_context(),
    )
    keep(directory, known)
    [path] = directory.iterdir()
    os.utime(path, (known.kept_at, known.kept_at))


async def test_an_outbox_that_is_not_there_is_not_made(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMMA_OUTBOX_DIR", str(tmp_path / "missing"))
    assert (await wrong())["outbox.directory"].state == "WARN"
    assert not (tmp_path / "missing").exists()


async def test_an_outbox_that_cannot_be_written_is_named(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "livekit.plugins.convex.directory_report.why_unusable", lambda path: "its disk is full"
    )
    check = (await wrong())["outbox.directory"]
    assert check.state == "FAIL"
    assert check.what.endswith("cannot be used: its disk is full")


@pytest.mark.parametrize(("free", "state"), [(GIB // 2, "WARN"), (1024**2, "FAIL")])
async def test_little_space_is_named(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert (await wrong())["outbox.space"].state == state


@pytest.mark.parametrize(("kind", "state"), [("nfs4", "FAIL"), ("9p", "FAIL"), (None, "WARN")])
async def test_a_disk_that_is_not_local_is_named(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, kind: str | None, state: str
) -> None:
    monkeypatch.setattr("livekit.plugins.convex.directory_report.file_system", lambda path: kind)
    check = (await wrong())["outbox.disk"]
    assert check.state == state
    assert "local" in (check.remedy or "")


# LiveKit and the models


async def test_a_livekit_server_that_is_away_is_named(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_URL", "ws://127.0.0.1:1")
    check = (await wrong())["livekit.url"]
    assert (check.state, check.what.partition(" (")[0]) == (
        "FAIL",
        "no answer from ws://127.0.0.1:1",
    )


@pytest.mark.parametrize(("status", "name"), [(401, "livekit.key"), (404, "livekit.url")])
async def test_what_livekit_refuses_is_named(cloud: Cloud, status: int, name: str) -> None:
    cloud.livekit[0] = status
    checks = await wrong()
    assert (list(checks), checks[name].state) == ([name], "FAIL")


async def test_the_load_rule_is_told_in_lessons(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = 4
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    told = (await found())["worker.load"].what

    class Worker:
        active_jobs: tuple[None, ...] = ()

    worker = Worker()
    while server.load_of(worker) < 0.7:  # type: ignore[arg-type]
        worker.active_jobs += (None,)
    assert f"up to {len(worker.active_jobs)} at once on {cores} cores" in told


@pytest.mark.parametrize(
    ("change", "state", "says"),
    [
        (lambda models: models.update(status=401), "FAIL", "refuses the key"),
        (lambda models: models.update(status=404), "WARN", "answers /models with HTTP 404"),
        (lambda models: models["ids"].pop(), "WARN", "does not list gpt-4o-mini-tts"),
    ],
)
async def test_models_that_are_not_there_are_named(
    cloud: Cloud, change: Callable[[dict[str, Any]], object], state: str, says: str
) -> None:
    change(cloud.models)
    check = (await wrong())["models.speech"]
    assert check.state == state
    assert says in check.what


async def test_a_model_server_that_is_away_is_named(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    check = (await wrong())["models.speech"]
    assert (check.state, check.what) == (
        "FAIL",
        "no answer from http://127.0.0.1:1/v1 (APIConnectionError)",
    )


async def test_each_server_of_models_is_asked(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMMA_TTS_BASE_URL", "http://127.0.0.1:1/v1")
    checks = await found()
    assert checks["models.stt+llm"].state == "OK"
    voice = checks["models.tts"]
    assert (voice.state, voice.remedy) == (
        "FAIL",
        "check OPENAI_BASE_URL or EMMA_TTS_BASE_URL and the network",
    )


async def test_models_of_livekits_package_that_do_not_load_are_named(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("…")

    monkeypatch.setattr("livekit.local_inference.EOT", broken)
    check = (await wrong())["models.local"]
    assert (check.state, "RuntimeError" in check.what) == ("FAIL", True)
