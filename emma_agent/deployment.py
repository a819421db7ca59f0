"""Which Convex deployment, as whom, and is it the right one?

The last is asked once when a worker starts, never in a lesson. The answer is one line with
a remedy. It stops nothing: lessons are held and their records wait on disk until the
deployment is put right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from emma_agent.logs import get_logger
from emma_agent.settings import Settings
from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    AuthenticationError,
    BusyError,
    ConfigurationError,
    ConvexClientError,
    FunctionError,
    TransportError,
)
from livekit.plugins.convex.limits import RECORD_VERSION

__all__ = ["Finding", "check_deployment", "where_and_as_whom", "worker_client"]

log = get_logger(__name__)

# The discard port of this machine: nobody answers, so that no record gets to the wrong place.
_NO_DEPLOYMENT_URL: Final = "http://127.0.0.1:9"
# Whom the worker's own token names: nobody's lesson.
_WORKER_SUBJECT: Final = "guest:worker"

_FUNCTION: Final = "sessions:recordVersions"
_HELD: Final = "lessons go on and their records wait on disk"
_DEPLOY: Final = "deploy this version's functions (`npm run convex:deploy`)"
_KEYS: Final = (
    "set AGENT_JWT_ISSUER and AGENT_JWKS on the deployment as `python -m emma_agent keys` "
    "prints them"
)

Event = Literal[
    "convex.ready",
    "convex.unreachable",
    "convex.wrong_address",
    "convex.busy",
    "convex.key_refused",
    "convex.functions_missing",
    "convex.functions_old",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found: a log event, and for everything but `convex.ready` the remedy."""

    event: Event
    reason: str = ""
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """The worker's records will be accepted."""
        return self.event == "convex.ready"


def where_and_as_whom(settings: Settings) -> tuple[str, AgentKey]:
    """The deployment's URL and the key to sign with.

    `start` refuses to run without either. When another command line started this worker, a
    student is already waiting: the lesson is held, and its journal keeps everything.
    """
    url = settings.deployment_url
    try:
        key = settings.agent_key()
    except ConfigurationError as error:
        log.error("convex.key_unusable", reason=str(error))
        key = AgentKey.generate()
    if url is None:
        log.error("convex.not_configured", remedy="set CONVEX_URL; until then records wait on disk")
    return url or _NO_DEPLOYMENT_URL, key


def worker_client(settings: Settings) -> AsyncConvexClient:
    """A client for the worker itself, outside of any lesson; needs a running loop."""
    url, key = where_and_as_whom(settings)
    return AsyncConvexClient(url, token=AgentToken(key, subject=_WORKER_SUBJECT))


async def check_deployment(client: AsyncConvexClient, *, timeout_s: float = 10.0) -> Finding:
    """Ask the deployment which record versions it folds; tell what stands in the way.

    Args:
        client: with a token of the worker's key.
        timeout_s: for the one call.
    """
    try:
        versions = await client.query(_FUNCTION, {}, timeout_s=timeout_s)
    except ConvexClientError as error:
        return _finding(error)
    if not isinstance(versions, list):
        return Finding(
            "convex.functions_missing",
            f"{_FUNCTION} gave another answer than this worker knows",
            f"{_DEPLOY}, or correct CONVEX_URL if it is another project's; until then {_HELD}",
        )
    if RECORD_VERSION not in versions:
        known = ", ".join(f"{version:g}" for version in versions if isinstance(version, float))
        return Finding(
            "convex.functions_old",
            f"the functions fold record versions {known or 'none'}; "
            f"this worker writes version {RECORD_VERSION}",
            f"{_DEPLOY}; until then {_HELD}",
        )
    return Finding("convex.ready")


def _finding(error: ConvexClientError) -> Finding:
    reason = f"{type(error).__name__}: {error}"
    match error:
        case ConfigurationError():
            return Finding(
                "convex.wrong_address", reason, f"correct CONVEX_URL; until then {_HELD}"
            )
        case AuthenticationError():
            return Finding("convex.key_refused", reason, f"{_KEYS}; until then {_HELD}")
        case FunctionError(code="unauthenticated" | "forbidden"):
            return Finding("convex.key_refused", reason, f"{_KEYS}; until then {_HELD}")
        case FunctionError():
            return Finding(
                "convex.functions_missing",
                reason,
                f"{_DEPLOY}, or correct CONVEX_URL if it is another project's; until then {_HELD}",
            )
        case BusyError():
            return Finding("convex.busy", reason, f"nothing to do: {_HELD}, delivery tries again")
        case TransportError(status=status) if status is not None:
            return Finding(
                "convex.wrong_address",
                reason,
                f"CONVEX_URL answers, but not as Convex does: correct it; until then {_HELD}",
            )
        case _:
            return Finding(
                "convex.unreachable",
                reason,
                f"check CONVEX_URL and the network; until then {_HELD}",
            )
