"""`doctor`: everything that a worker here needs, looked at once, with a remedy for what is wrong.

Read only: it makes no directory, writes no row and holds no lesson. `FAIL` is what a lesson would
fail for or lose something by; `WARN` is what someone should look at.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import typer

from emma_agent import known_context
from emma_agent.deployment import Finding, check_deployment
from emma_agent.settings import Endpoint, Part, Settings, SettingsError
from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    ConfigurationError,
    ConvexClientError,
    FunctionError,
)
from livekit.plugins.convex.directory_report import look_at_directory
from livekit.plugins.convex.limits import RECORD_VERSION

__all__ = ["Check", "examine", "main"]

# For each thing that is asked over the network.
TIMEOUT_S: Final = 10.0
# The Date header tells whole seconds, and the network takes its time.
_CLOCK_ERROR_S: Final = 5.0
# Some hundred lessons; a journal may grow to a quarter of a gigabyte (`outbox.DEFAULT_MAX_BYTES`).
_LITTLE_SPACE_BYTES: Final = 1024**3
_NO_SPACE_BYTES: Final = 64 * 1024**2
# LiveKit's `load_threshold` in production: from there on a worker gets no jobs.
_LOAD_THRESHOLD: Final = 0.7

_DEPLOY: Final = "deploy this version's functions (`npm run convex:deploy`)"

State = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: stable, for scripts, such as `convex.key`.
        what: what was found.
        remedy: None where nothing is wrong.
    """

    name: str
    state: State
    what: str
    remedy: str | None = None

    def line(self) -> str:
        """For a terminal."""
        told = f"{self.state:<5}{self.name:<18}{self.what}"
        return told if self.remedy is None else f"{told}; {self.remedy}"


def main(*, as_json: bool) -> int:
    """Look, print what was found, and return the exit code: 1 if anything fails."""
    # What libraries would log is in the findings.
    for name in ("livekit.plugins.convex", "livekit", "openai", "httpx"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    try:
        settings = Settings.load()
    except SettingsError as error:
        found = [
            Check("settings", "FAIL", problem, "correct it; docker/.env.example lists them all")
            for problem in error.problems
        ]
    else:
        found = asyncio.run(examine(settings))
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in found], ensure_ascii=False, indent=2))
    else:
        for check in found:
            typer.echo(check.line())
    return 1 if any(check.state == "FAIL" for check in found) else 0


async def examine(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> list[Check]:
    """Everything that can be looked at with these settings, in a fixed order.

    Args:
        timeout_s: for each call over the network.
    """
    convex, livekit, models = await asyncio.gather(
        _convex(settings, timeout_s), _livekit(settings, timeout_s), _models(settings, timeout_s)
    )
    return [*convex, *_outbox(settings), *livekit, _load(), *models, await _bundled_models()]


# Convex


async def _convex(settings: Settings, timeout_s: float) -> list[Check]:
    url = settings.deployment_url
    found: list[Check] = []
    key: AgentKey | None = None
    try:
        key = settings.agent_key()
    except ConfigurationError as error:
        what, _, remedy = str(error).partition("; ")
        found.append(
            Check("convex.key", "FAIL", what, remedy or "`python -m emma_agent keys` makes one")
        )
    if url is None:
        missing = "give the address of your deployment (https://….convex.cloud)"
        return [Check("convex.url", "FAIL", "CONVEX_URL is not set", missing), *found]
    token = None if key is None else AgentToken(key, subject="guest:doctor")
    async with AsyncConvexClient(url, token=token, timeout_s=timeout_s) as client:
        finding = await check_deployment(client, timeout_s=timeout_s)
        found.insert(0, _address(url, finding))
        if found[0].state != "OK":
            return found
        if key is not None:
            found.append(_key(finding))
            found.append(await _functions(client, finding))
        found.append(_clock(await client.server_time(timeout_s=timeout_s)))
    return found


def _address(url: str, finding: Finding) -> Check:
    match finding.event:
        case "convex.unreachable" | "convex.wrong_address":
            return Check("convex.url", "FAIL", finding.reason, finding.remedy)
        case "convex.busy":
            return Check("convex.url", "WARN", finding.reason, finding.remedy)
        case _:
            return Check("convex.url", "OK", f"{url} answers as Convex does")


def _key(finding: Finding) -> Check:
    if finding.event == "convex.key_refused":
        return Check("convex.key", "FAIL", finding.reason, finding.remedy)
    if finding.event == "convex.functions_missing":
        # A deployment without our functions has no say in whose token is good.
        return Check("convex.key", "WARN", "could not be tried without the functions", _DEPLOY)
    return Check("convex.key", "OK", "the deployment takes this worker's token")


async def _functions(client: AsyncConvexClient, finding: Finding) -> Check:
    if finding.event in ("convex.functions_missing", "convex.functions_old"):
        return Check("convex.functions", "FAIL", finding.reason, finding.remedy)
    if finding.event == "convex.key_refused":
        return Check(
            "convex.functions", "WARN", "could not be asked with this key", "see convex.key"
        )
    try:
        # No records: it is checked as a batch is, and nothing is written.
        nothing = {"version": RECORD_VERSION, "runId": "doctor", "records": []}
        await client.mutation("sessions:record", nothing)
    except FunctionError as error:
        return Check("convex.functions", "FAIL", str(error), _DEPLOY)
    except ConvexClientError as error:
        return Check("convex.functions", "WARN", str(error), "look again in a minute")
    return Check(
        "convex.functions", "OK", f"sessions:record folds records of version {RECORD_VERSION}"
    )


def _clock(server_time: float | None) -> Check:
    if server_time is None:
        return Check(
            "convex.clock",
            "WARN",
            "the deployment does not tell its time",
            "let its proxy pass the Date header on; a token is then signed by the right clock",
        )
    error_s = time.time() - server_time
    if abs(error_s) <= _CLOCK_ERROR_S:
        return Check("convex.clock", "OK", f"{abs(error_s):.0f} s from the deployment's")
    side = "ahead of" if error_s > 0 else "behind"
    return Check(
        "convex.clock",
        "WARN",
        f"{abs(error_s):.0f} s {side} the deployment's; lessons carry this clock's times",
        "switch time synchronisation on (`timedatectl set-ntp true`)",
    )


# The outbox


def _outbox(settings: Settings) -> list[Check]:
    directory = settings.outbox_directory
    set_it = "set EMMA_OUTBOX_DIR to a directory on a local disk that the worker may write"
    try:
        report = look_at_directory(directory)
    except OSError as error:
        told = f"{directory} cannot be looked at ({error.strerror})"
        return [Check("outbox.directory", "FAIL", told, set_it)]
    if report.problem is not None:
        state: State = "FAIL"
        what, remedy = f"{directory} cannot be used: {report.problem}", set_it
    elif not report.exists:
        state, what = "WARN", f"{directory} is not there yet"
        remedy = "the worker makes it at its start; if lessons were held here, correct the path"
    elif report.open_to_others:
        state, what = "WARN", f"{directory} can be read by other users of this machine"
        remedy = f"`chmod 700 {directory}`"
    else:
        state, what, remedy = "OK", f"{directory} is writable, and this user's alone", ""
    return [
        Check("outbox.directory", state, what, remedy or None),
        _space(report.free_bytes),
        _file_system(report.file_system, on_network=report.on_network, remedy=set_it),
        _contexts(directory),
    ]


def _contexts(directory: Path) -> Check:
    """What lies there of students beside the journals, which `outbox status` tells of."""
    days = known_context.KEPT_FOR_S / 86_400
    try:
        kept = known_context.look(directory)
    except OSError as error:
        remedy = "let this user read the directory"
        return Check("outbox.contexts", "WARN", f"cannot be listed ({error.strerror})", remedy)
    if kept.oldest_at is None:
        return Check("outbox.contexts", "OK", "nothing is kept of students whom Convex knows")
    age = max(0.0, (time.time() - kept.oldest_at) / 86_400)
    what = (
        f"last known contexts of students: {kept.files}, {kept.size / 1024:.0f} KiB, "
        f"the oldest {age:.1f} days old"
    )
    if age > days + 1:
        remedy = f"a running worker removes them after {days:.0f} days: start one, or delete them"
        return Check("outbox.contexts", "WARN", what, remedy)
    return Check("outbox.contexts", "OK", f"{what}; they go after {days:.0f} days")


def _space(free_bytes: int) -> Check:
    what = f"{free_bytes / 1024**3:.1f} GiB free"
    remedy = "make room: what Convex has not taken yet waits there"
    if free_bytes < _NO_SPACE_BYTES:
        return Check("outbox.space", "FAIL", what, remedy)
    if free_bytes < _LITTLE_SPACE_BYTES:
        return Check("outbox.space", "WARN", what, remedy)
    return Check("outbox.space", "OK", what)


def _file_system(name: str | None, *, on_network: bool, remedy: str) -> Check:
    if on_network:
        what = (
            f"it is on a network file system ({name}), whose locks and writes a lesson may hang on"
        )
        return Check("outbox.disk", "FAIL", what, remedy)
    if name is None:
        what = "this system does not tell what kind of disk it is on"
        return Check("outbox.disk", "WARN", what, "make sure that it is a local one")
    return Check("outbox.disk", "OK", f"a local file system ({name})")


# LiveKit


async def _livekit(settings: Settings, timeout_s: float) -> list[Check]:
    import aiohttp
    from livekit import api

    url, secret = settings.livekit_url, settings.livekit_api_secret
    missing = settings.missing_livekit()
    if url is None or settings.livekit_api_key is None or secret is None:
        faults = (problem.rstrip(".").partition(": ") for problem in missing)
        return [Check("livekit", "FAIL", what, remedy) for what, _, remedy in faults]
    server = api.LiveKitAPI(
        url,
        settings.livekit_api_key,
        secret.get_secret_value(),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        failover=False,
    )
    try:
        # A name that nobody has: the answer stays small on a server with a thousand rooms.
        await server.room.list_rooms(api.ListRoomsRequest(names=["emma-doctor"]))
    except api.ServerError as error:
        if error.status in (401, 403):
            take_it = "take LIVEKIT_API_KEY and LIVEKIT_API_SECRET from the same project as the URL"
            return [
                Check("livekit.url", "OK", f"{url} answers"),
                Check("livekit.key", "FAIL", "the server refuses the API key", take_it),
            ]
        what = f"{url} answers, but not as LiveKit does (HTTP {error.status})"
        return [Check("livekit.url", "FAIL", what, "correct LIVEKIT_URL")]
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        what = f"no answer from {url} ({type(error).__name__})"
        remedy = "check LIVEKIT_URL and the network; `livekit-server --dev` runs one here"
        return [Check("livekit.url", "FAIL", what, remedy)]
    finally:
        await server.aclose()
    return [
        Check("livekit.url", "OK", f"{url} answers"),
        Check("livekit.key", "OK", "the server takes the API key"),
    ]


def _load() -> Check:
    """What `server.load_of` comes to on this machine: whole lessons below LiveKit's threshold."""
    from emma_agent.server import LESSONS_PER_CORE

    cores = os.cpu_count() or 1
    # A job is taken while the load is below the threshold, so one more than that.
    lessons = int(_LOAD_THRESHOLD * LESSONS_PER_CORE * cores) + 1
    return Check(
        "worker.load",
        "OK",
        f"takes lessons below a load of {_LOAD_THRESHOLD}: up to {lessons} at once on {cores} cores",
    )


# The models


async def _models(settings: Settings, timeout_s: float) -> list[Check]:
    """One check for each server that a lesson asks."""
    if not all(settings.endpoint(part).usable for part in settings.speech_parts):
        remedy = "set a key, or OPENAI_BASE_URL to a compatible server"
        return [Check("models.speech", "FAIL", "OPENAI_API_KEY is not set", remedy)]
    models: dict[Part, tuple[str, ...]] = {
        "stt": (settings.stt_model,),
        "llm": (settings.llm_model,),
        "tts": (settings.tts_model,),
        "realtime": (settings.realtime_model, settings.stt_model),
    }
    asked: dict[Endpoint, list[Part]] = {}
    for part in settings.speech_parts:
        asked.setdefault(settings.endpoint(part), []).append(part)
    return [
        await _server(
            endpoint,
            wanted={model for part in parts for model in models[part]},
            parts=parts,
            shared=len(asked) == 1,
            timeout_s=timeout_s,
        )
        for endpoint, parts in asked.items()
    ]


async def _server(
    endpoint: Endpoint, *, wanted: set[str], parts: list[Part], shared: bool, timeout_s: float
) -> Check:
    import openai

    name = "models.speech" if shared else f"models.{'+'.join(parts)}"
    prefixes = ["OPENAI"] if shared else ["OPENAI", *(f"EMMA_{part.upper()}" for part in parts)]
    keys = " or ".join(f"{prefix}_API_KEY" for prefix in prefixes)
    addresses = " or ".join(f"{prefix}_BASE_URL" for prefix in prefixes)
    client = openai.AsyncOpenAI(
        api_key=endpoint.key,
        base_url=endpoint.base_url or "https://api.openai.com/v1",
        timeout=timeout_s,
        max_retries=0,
    )
    where = endpoint.base_url or "api.openai.com"
    try:
        offered = {model.id for model in (await client.models.list()).data}
    except openai.AuthenticationError:
        return Check(name, "FAIL", f"{where} refuses the key", f"take a valid {keys} for it")
    except openai.APIStatusError as error:
        what = f"{where} answers /models with HTTP {error.status_code}"
        remedy = f"correct {addresses}; a server without /models may serve lessons all the same"
        return Check(name, "WARN", what, remedy)
    except openai.OpenAIError as error:
        what = f"no answer from {where} ({type(error).__name__})"
        return Check(name, "FAIL", what, f"check {addresses} and the network")
    finally:
        await client.close()
    if unknown := sorted(wanted - offered):
        what = f"{where} does not list {', '.join(unknown)}"
        variables = sorted({f"EMMA_{part.upper()}_MODEL" for part in parts})
        remedy = f"set {' and '.join(variables)} to models that it has"
        return Check(name, "WARN", what, remedy)
    return Check(name, "OK", f"{where} has {', '.join(sorted(wanted))}")


async def _bundled_models() -> Check:
    """Voice activity and end of turn run in the job process, from files of LiveKit's package."""

    def load() -> None:
        import livekit.local_inference as local

        local.VAD()
        local.EOT()

    try:
        await asyncio.to_thread(load)
    except Exception as error:  # noqa: BLE001  whatever keeps them from loading keeps a lesson too
        what = f"voice activity or turn detection does not load ({type(error).__name__})"
        remedy = "install livekit-agents anew (`make setup`), for this machine's own processor"
        return Check("models.local", "FAIL", what, remedy)
    return Check("models.local", "OK", "voice activity and turn detection load")
