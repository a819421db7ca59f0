"""Which services a demo uses, read from the environment; and what its children may see of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["Deployment", "Plan", "StageError", "clean_environment"]

# A child gets these from the stage or not at all: settings of another run must not leak in.
_OURS: Final = ("LIVEKIT_", "CONVEX_", "NEXT_PUBLIC_CONVEX_", "OPENAI_", "EMMA_")
_MODELS: Final = (
    "OPENAI_",
    "EMMA_SPEECH",
    "EMMA_STT_",
    "EMMA_LLM_",
    "EMMA_TTS_",
    "EMMA_REALTIME_",
)
_LOCAL: Final = "127.0.0.1,localhost"


class StageError(RuntimeError):
    """The demo cannot go on: one plain sentence, and the log that says more."""

    def __init__(self, sentence: str, *, log: Path | None = None) -> None:
        super().__init__(sentence)
        self.log = log


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Convex deployment and who may do what on it."""

    url: str
    admin_key: str
    agent: Mapping[str, str]
    """CONVEX_AGENT_KEY and, if it is not the default, CONVEX_AGENT_ISSUER."""

    @property
    def environment(self) -> dict[str, str]:
        """What the worker is told; the admin key is no part of it."""
        return {"CONVEX_URL": self.url, **self.agent}


@dataclass(frozen=True, slots=True)
class Plan:
    """Which services are used."""

    openai: Mapping[str, str] | None = None
    """OPENAI_* and the names of the models, or None for the offline speech."""
    convex: Deployment | None = None
    """A deployment that runs already, or None for a convex-local of this lesson alone."""
    log_level: str = "INFO"
    speech: Literal["pipeline", "realtime"] = "pipeline"
    """Which kind the offline speech is."""
    late_transcripts_s: float = 0.0
    """In realtime: how late the student's words are written down."""
    seed: Literal["seed:demo", "seed:shortLesson"] = "seed:demo"
    """What puts student and lesson into Convex."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Plan:
        """Offline and local, unless OPENAI_API_KEY or CONVEX_URL is set.

        Raises:
            StageError: CONVEX_URL is set without the keys that it needs.
        """
        openai = None
        if environ.get("OPENAI_API_KEY"):
            openai = {name: value for name, value in environ.items() if name.startswith(_MODELS)}
        url = environ.get("CONVEX_URL") or environ.get("NEXT_PUBLIC_CONVEX_URL")
        if not url:
            return cls(openai=openai)
        needed = ("CONVEX_ADMIN_KEY", "CONVEX_AGENT_KEY")
        if lacking := [name for name in needed if not environ.get(name)]:
            raise StageError(
                f"CONVEX_URL is set, so the demo also needs {' and '.join(lacking)}: the admin key "
                "to put its student there, the agent's key to record the lesson. "
                "Unset CONVEX_URL to run without a deployment."
            )
        told = ("CONVEX_AGENT_KEY", "CONVEX_AGENT_ISSUER")
        agent = {name: environ[name] for name in told if environ.get(name)}
        return cls(openai=openai, convex=Deployment(url, environ["CONVEX_ADMIN_KEY"], agent))


def clean_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a child before the stage adds its own settings."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_OURS)}
    # The children talk to each other on loopback, also where a proxy is set.
    for name in ("NO_PROXY", "no_proxy"):
        kept[name] = ",".join(filter(None, (kept.get(name), _LOCAL)))
    return {**kept, "PYTHONUNBUFFERED": "1"}
