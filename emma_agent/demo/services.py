"""The services of one lesson: each is started, awaited until it really answers, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from emma_agent.demo.children import Child, ChildEndedError
from emma_agent.demo.livekit_server import LiveKitServer, free_port
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
# An interrupted lesson first delivers its last records (server.py, DRAIN_TIMEOUT_S).
_WORKER_GRACE_S: Final = 8.0


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
    start_worker: Callable[[], Awaitable[Child]]
    """Another worker with the same outbox, once it takes jobs: for when the first is dead."""


@dataclass(frozen=True, slots=True)
class _Seed:
    student_id: str
    lesson_id: str


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
    deployment = plan.convex or _local_deployment()
    base = clean_environment()
    async with AsyncExitStack() as stack:

        def start(
            name: str, command: list[str], env: Mapping[str, str], *, grace_s: float
        ) -> Child:
            log = directory / f"{name.split()[-1].lower()}.log"
            child = Child(name, command, env={**base, **env}, log=log)
            stack.push_async_callback(_end, child, children, grace_s)
            children.add(child)
            return child

        # All at once, on ports chosen beforehand: most of it is Python importing, and two
        # cores import two things at a time.
        livekit = start("The LiveKit server", server.command, server.env, grace_s=1.0)
        speech = None
        models = plan.openai or {}
        if plan.openai is None:
            port = free_port()
            speech = start("The offline speech", _speech(plan, port), {}, grace_s=2.0)
            own = "EMMA_REALTIME" if plan.speech == "realtime" else "OPENAI"
            models = {
                "EMMA_SPEECH": plan.speech,
                f"{own}_BASE_URL": f"http://127.0.0.1:{port}/v1",
                f"{own}_API_KEY": "offline",
            }

        def begin_worker(name: str) -> Child:
            return start(
                name,
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
                grace_s=_WORKER_GRACE_S,
            )

        async def start_worker() -> Child:
            successor = begin_worker("The worker's successor")
            await _until_logged(successor, "registered worker", timeout_s=_WORKER_S)
            screen.ready("worker, started again")
            return successor

        worker = begin_worker("The worker")
        convex_log = None if plan.convex else directory / "convex.log"
        seed = _Seed("", "")

        async def convex() -> None:
            nonlocal deployment, seed
            if convex_log is not None:
                # Most of the import; the rest is quick and insists on the main thread.
                await asyncio.to_thread(importlib.import_module, "livekit.agents")
                local = _convex_local(deployment, convex_log)
                deployment = await stack.enter_async_context(local)
                # Started before it, the worker still ends before it: it has records to deliver.
                stack.push_async_callback(_end, worker, children, _WORKER_GRACE_S)
            seed = await _seed(plan.seed, deployment, convex_log)
            screen.ready("Convex" if plan.convex else "convex-local, with a student and a lesson")

        async def until(child: Child | None, text: str, timeout_s: float, name: str) -> None:
            if child is not None:
                await _until_logged(child, text, timeout_s=timeout_s)
                screen.ready(name)

        async def answers() -> None:
            await _until_answers(livekit, server.health_url)
            screen.ready("LiveKit server")

        with screen.waiting("starting the services"):
            await _together(
                convex(),
                answers(),
                until(speech, '"event": "ready"', _SPEECH_S, "offline speech and the script"),
                until(worker, "registered worker", _WORKER_S, "worker (python -m emma_agent dev)"),
            )
        yield Services(
            livekit=server,
            deployment=deployment,
            student_id=seed.student_id,
            lesson_id=seed.lesson_id,
            needed=tuple(child for child in (livekit, speech, worker) if child is not None),
            worker=worker,
            start_worker=start_worker,
        )


def _speech(plan: Plan, port: int) -> list[str]:
    module, options = "speech", []
    if plan.speech == "realtime":
        module, options = "realtime", ["--late-transcripts", str(plan.late_transcripts_s)]
    command = [sys.executable, "-m", f"emma_agent.demo.{module}", "--port", str(port)]
    return [*command, *options, "--exit-with-parent"]


async def _end(child: Child, children: set[Child], grace_s: float) -> None:
    await child.stop(grace_s=grace_s)
    children.discard(child)


def _local_deployment() -> Deployment:
    """Where convex-local will be, and a key of this run alone; it makes its own admin key."""
    # Not by AgentKey: importing the plugin takes seconds in which nothing would be starting yet.
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    url = f"http://127.0.0.1:{free_port()}"
    return Deployment(url=url, admin_key="", agent={"CONVEX_AGENT_KEY": pem.decode()})


@asynccontextmanager
async def _convex_local(chosen: Deployment, log: Path) -> AsyncIterator[Deployment]:
    from emma_agent.convex_local import ConvexLocal, ConvexLocalError
    from livekit.plugins.convex import AgentKey

    with log.open("a", buffering=1, encoding="utf-8") as sink:

        def write(line: str) -> None:
            # From a thread that may outlast the file by a line.
            with contextlib.suppress(ValueError):
                sink.write(f"{line}\n")

        try:
            local = await ConvexLocal.start(
                db=log.with_suffix(".sqlite3"),
                port=urlsplit(chosen.url).port or 0,
                agent_key=AgentKey.from_env(chosen.agent),
                # The demo of a crash takes Convex away for a while.
                faults=True,
                on_log=write,
            ).__aenter__()
        except ConvexLocalError as error:
            raise StageError(str(error)) from error
        try:
            yield replace(chosen, admin_key=local.admin_key)
        finally:
            await local.__aexit__(None, None, None)


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Do all of it at the same time; raises what failed first."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _seed(function: str, deployment: Deployment, log: Path | None) -> _Seed:
    """Run the internal mutation that makes student and lesson."""
    call = {"path": function, "args": {}, "format": "json"}
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
            return _Seed(str(seed["studentId"]), str(seed["lessonId"]))
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
        f"({function}: {reason}).{remedy}",
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


async def _until_logged(child: Child, text: str, *, timeout_s: float) -> None:
    def logged() -> bool:
        return text in child.log.read_text(encoding="utf-8", errors="replace")

    try:
        await child.wait_for(logged, timeout_s=timeout_s)
    except TimeoutError:
        raise StageError(
            f"{child.name} was not ready within {timeout_s:g} s.", log=child.log
        ) from None
