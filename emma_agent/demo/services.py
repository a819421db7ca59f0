"""The services of one lesson: each is started, awaited until it really answers, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from emma_agent.demo.children import Child, ChildEndedError
from emma_agent.demo.livekit_server import LiveKitServer
from emma_agent.demo.plan import Deployment, Plan, StageError, clean_environment
from emma_agent.demo.screen import Screen

__all__ = ["AGENT_NAME", "ROOT", "Services", "run_services"]

ROOT: Final = Path(__file__).resolve().parents[2]
AGENT_NAME: Final = "emma"

# Deadlines in seconds. Generous: with both cores hogged, starting takes three times as long.
_SERVER_S: Final = 30.0
_SPEECH_S: Final = 60.0
_SEED_S: Final = 30.0
_WORKER_S: Final = 90.0


@dataclass(frozen=True, slots=True)
class Services:
    """What runs, and how to reach it."""

    livekit: LiveKitServer
    deployment: Deployment
    student_id: str
    lesson_id: str
    needed: tuple[Child, ...]
    """Without each of these the lesson cannot go on."""
    worker: Child


@asynccontextmanager
async def run_services(
    plan: Plan, *, directory: Path, screen: Screen, children: set[Child]
) -> AsyncIterator[Services]:
    """Start everything a lesson needs; at the end of the block every process is gone.

    Args:
        directory: gets the database, the outbox and the logs.
        children: holds the processes while they run, for someone in a hurry to kill.

    Raises:
        StageError: something did not come up.
        ChildEndedError: a process ended by itself.
        ServerMissingError: there is no livekit-server.
    """
    server = LiveKitServer.choose(ROOT)
    base = clean_environment()
    async with AsyncExitStack() as stack:

        async def start(
            name: str, command: list[str], env: Mapping[str, str], *, grace_s: float
        ) -> Child:
            log = directory / f"{name.split()[-1].lower()}.log"
            child = _running(Child, name, command, {**base, **env}, log, children, grace_s)
            return await stack.enter_async_context(child)

        livekit = await start("The LiveKit server", server.command, server.env, grace_s=1.0)
        needed = [livekit]
        models = plan.openai or {}
        if plan.openai is None:
            command = [sys.executable, "-m", "emma_agent.demo.speech", "--port", "0"]
            speech = await start(
                "The offline speech", [*command, "--exit-with-parent"], {}, grace_s=2.0
            )
            needed.append(speech)
        deployment = await stack.enter_async_context(_convex(plan.convex, directory))
        convex_log = None if plan.convex else directory / "convex.log"
        student_id, lesson_id = await _seed(deployment, convex_log)
        screen.ready("Convex" if plan.convex else "convex-local, with a student and a lesson")
        await _until_answers(livekit, server.health_url)
        screen.ready("LiveKit server")
        if plan.openai is None:
            models = {"OPENAI_BASE_URL": await _speech_url(speech), "OPENAI_API_KEY": "offline"}
            screen.ready("offline speech: Whisper tiny.en, espeak-ng, and the script")
        worker = await start(
            "The worker",
            [sys.executable, "-m", "emma_agent", "dev"],
            {
                **deployment.environment,
                **models,
                "LIVEKIT_URL": server.url,
                "LIVEKIT_API_KEY": server.api_key,
                "LIVEKIT_API_SECRET": server.api_secret,
                "EMMA_AGENT_NAME": AGENT_NAME,
                "EMMA_LOG_LEVEL": plan.log_level,
                "EMMA_OUTBOX_DIR": str(directory / "outbox"),
                # The turn model is unsure of espeak's voice and then waits 2.5 s longer.
                "EMMA_TURN_DETECTION": "vad" if plan.openai is None else "v1-mini",
            },
            # An interrupted lesson delivers its last records first.
            grace_s=8.0,
        )
        needed.append(worker)
        try:
            await worker.wait_for(
                lambda: "registered worker" in _text(worker.log), timeout_s=_WORKER_S
            )
        except TimeoutError:
            raise StageError(
                f"The worker did not register with LiveKit within {_WORKER_S:g} s.", log=worker.log
            ) from None
        screen.ready("worker (python -m emma_agent dev)")
        yield Services(
            livekit=server,
            deployment=deployment,
            student_id=student_id,
            lesson_id=lesson_id,
            needed=tuple(needed),
            worker=worker,
        )


@asynccontextmanager
async def _running(
    make: type[Child],
    name: str,
    command: list[str],
    env: Mapping[str, str],
    log: Path,
    children: set[Child],
    grace_s: float,
) -> AsyncIterator[Child]:
    child = make(name, command, env=env, log=log)
    children.add(child)
    try:
        yield child
    finally:
        await child.stop(grace_s=grace_s)
        children.discard(child)


@asynccontextmanager
async def _convex(given: Deployment | None, directory: Path) -> AsyncIterator[Deployment]:
    if given is not None:
        yield given
        return
    # Here, not above: it takes as long to import as the processes take to start.
    from emma_agent.convex_local import ConvexLocal, ConvexLocalError

    log = directory / "convex.log"
    with log.open("a", buffering=1, encoding="utf-8") as sink:
        try:
            starting = ConvexLocal.start(
                db=directory / "convex.sqlite3", on_log=lambda line: _write(sink, line)
            )
            local = await starting.__aenter__()
        except ConvexLocalError as error:
            raise StageError(str(error), log=log) from error
        try:
            agent = {
                "CONVEX_AGENT_KEY": local.agent_key.pem(),
                "CONVEX_AGENT_ISSUER": local.agent_key.issuer,
            }
            yield Deployment(local.url, local.admin_key, agent)
        finally:
            await starting.__aexit__(None, None, None)


def _write(sink: object, line: str) -> None:
    # From a thread that may outlast the file by a line.
    with contextlib.suppress(ValueError):
        sink.write(f"{line}\n")  # type: ignore[attr-defined]


async def _seed(deployment: Deployment, log: Path | None) -> tuple[str, str]:
    """Run the internal mutation `seed:demo`; returns the student's and the lesson's id."""
    call = {"path": "seed:demo", "args": {}, "format": "json"}
    headers = {"Authorization": f"Convex {deployment.admin_key}"}
    url = f"{deployment.url.rstrip('/')}/api/mutation"
    timeout = aiohttp.ClientTimeout(total=_SEED_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=call, headers=headers) as reply,
        ):
            answer = await reply.json(content_type=None)
        if isinstance(answer, dict) and isinstance(seed := answer.get("value"), dict):
            return str(seed["studentId"]), str(seed["lessonId"])
        reason = f"HTTP {reply.status}"
        if isinstance(answer, dict):
            reason = str(answer.get("errorMessage") or answer.get("message") or reason)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = type(error).__name__
    remedy = (
        ""
        if log is not None
        else " Is CONVEX_ADMIN_KEY right, and are the functions there (`npm run convex:deploy`)?"
    )
    raise StageError(
        f"The demo's student could not be put into Convex at {deployment.url} "
        f"(seed:demo: {reason}).{remedy}",
        log=log,
    )


async def _until_answers(child: Child, url: str) -> None:
    async with aiohttp.ClientSession() as session:
        try:
            async with asyncio.timeout(_SERVER_S):
                while True:
                    if child.exited.is_set():
                        raise ChildEndedError(child)
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.get(url) as reply:
                            if reply.status == 200:
                                return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise StageError(
                f"{child.name} did not answer within {_SERVER_S:g} s.", log=child.log
            ) from None


async def _speech_url(speech: Child) -> str:
    def ready() -> dict[str, str] | None:
        for line in _text(speech.log).splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") == "ready":
                    return event
        return None

    try:
        await speech.wait_for(lambda: ready() is not None, timeout_s=_SPEECH_S)
    except TimeoutError:
        raise StageError(
            f"The offline speech was not ready within {_SPEECH_S:g} s.", log=speech.log
        ) from None
    return (ready() or {})["url"]


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")
