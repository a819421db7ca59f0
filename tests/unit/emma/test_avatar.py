"""The talking head: a face if it can be had, and Emma's voice whatever becomes of it."""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.job import DEFAULT_PARTICIPANT_KINDS
from livekit.agents.voice.avatar import AvatarSession
from livekit.agents.voice.io import AudioOutput, AudioOutputCapabilities

from emma_agent import avatar as module
from emma_agent.avatar import PROVIDERS, show_talking_head
from emma_agent.context import Avatar, TalkingHead
from emma_agent.logs import configure_logging

ROOT = Path(__file__).parents[3]


class SilentOutput(AudioOutput):
    """What a face puts in the place of the room's own sound."""

    def __init__(self) -> None:
        super().__init__(label="face", capabilities=AudioOutputCapabilities(pause=False))

    async def capture_frame(self, frame: rtc.AudioFrame) -> None: ...

    def flush(self) -> None: ...

    def clear_buffer(self) -> None: ...


class FakeFace(AvatarSession[Any]):
    """A plugin's session: takes the voice when it starts, and joins, or does not."""

    def __init__(self, **made_with: Any) -> None:
        super().__init__()
        self.made_with = made_with
        self.fails_at = ""
        self.closed = False

    @property
    def avatar_identity(self) -> str:
        return "fake-avatar-agent"

    async def start(self, agent_session: AgentSession[Any], room: rtc.Room) -> None:
        agent_session.output.audio = SilentOutput()
        if self.fails_at == "start":
            raise RuntimeError("the provider refuses")

    async def wait_for_join(self, *, timeout: float | None = 30.0) -> None:
        if self.fails_at == "join":
            raise TimeoutError

    async def aclose(self) -> None:
        self.closed = True
        if self.fails_at:
            raise RuntimeError("and does not even close")


class Plugins:
    """What is installed: by name, and the faces that were made."""

    def __init__(self) -> None:
        self.made: list[FakeFace] = []
        self.fails_at = ""

    def load(self, name: str) -> Any:
        if name == "bey":
            raise ImportError(name)
        return SimpleNamespace(
            AvatarSession=self.make, SimliConfig=dict, PersonaConfig=lambda **config: config
        )

    def make(self, **made_with: Any) -> FakeFace:
        face = FakeFace(**made_with)
        face.fails_at = self.fails_at
        self.made.append(face)
        return face


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    plugins = Plugins()
    monkeypatch.setattr(module, "_import", plugins.load)
    monkeypatch.setenv("SIMLI_API_KEY", "simli-secret")
    return plugins


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    configure_logging()
    caplog.set_level(logging.INFO, logger="emma_agent")
    return caplog


def wanting(provider: str) -> Avatar:
    return Avatar(name="Kim", talking_head=TalkingHead(provider=provider, face="f1"))


async def shown(avatar: Avatar | None) -> tuple[AvatarSession[Any] | None, AudioOutput | None]:
    session: AgentSession[Any] = AgentSession(vad=None)
    face = await show_talking_head(avatar, session, rtc.Room())
    return face, session.output.audio


@pytest.mark.parametrize(
    ("provider", "made_with"),
    [
        ("anam", {"persona_config": {"name": "Kim", "avatarId": "f1"}}),
        ("simli", {"simli_config": {"api_key": "simli-secret", "face_id": "f1"}}),
        ("tavus", {"face_id": "f1"}),
    ],
)
async def test_a_face_is_brought_into_the_room(
    plugins: Plugins, provider: str, made_with: dict[str, Any]
) -> None:
    face, sound = await shown(wanting(provider))
    assert [made.made_with for made in plugins.made] == [made_with]
    assert face is plugins.made[0]
    assert isinstance(sound, SilentOutput)


@pytest.mark.parametrize("avatar", [None, Avatar(name="Kim")])
async def test_without_one_in_the_avatar_nothing_is_imported(
    plugins: Plugins, logs: pytest.LogCaptureFixture, avatar: Avatar | None
) -> None:
    assert await shown(avatar) == (None, None)
    assert (plugins.made, logs.records) == ([], [])


@pytest.mark.parametrize(
    ("provider", "error", "remedy"),
    [
        ("hologram", "unknown", "choose one of anam, bey, simli, tavus in the avatar"),
        ("bey", "ImportError", "pip install 'emma-agent[bey]'"),
    ],
)
async def test_one_that_is_not_there_leaves_the_voice_and_one_line(
    plugins: Plugins,
    logs: pytest.LogCaptureFixture,
    provider: str,
    error: str,
    remedy: str,
) -> None:
    assert await shown(wanting(provider)) == (None, None)
    [line] = logs.records
    assert line.getMessage() == "avatar.voice_only"
    assert (line.__dict__["error"], line.__dict__["remedy"]) == (error, remedy)


@pytest.mark.parametrize(("at", "error"), [("start", "RuntimeError"), ("join", "TimeoutError")])
async def test_one_that_fails_gives_the_voice_back(
    plugins: Plugins, logs: pytest.LogCaptureFixture, at: str, error: str
) -> None:
    """Else Emma would speak to a face that is not there."""
    plugins.fails_at = at
    assert await shown(wanting("tavus")) == (None, None)
    assert plugins.made[0].closed
    [line] = logs.records
    assert (line.getMessage(), line.__dict__["error"]) == ("avatar.voice_only", error)


async def test_a_key_that_is_not_set_is_no_end_of_the_lesson(
    plugins: Plugins, logs: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIMLI_API_KEY")
    assert await shown(wanting("simli")) == (None, None)
    [line] = logs.records
    assert line.__dict__["error"] == "KeyError"


def test_a_face_is_no_kind_of_participant_that_is_taken_for_the_student() -> None:
    """The plugins give theirs the kind "agent"; the room's options leave the kinds as they are."""
    assert rtc.ParticipantKind.PARTICIPANT_KIND_AGENT not in DEFAULT_PARTICIPANT_KINDS


def test_each_provider_is_an_extra_and_on_the_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    page = (ROOT / "docs" / "speech.md").read_text()
    for provider in PROVIDERS:
        assert f"| `{provider}` | `emma-agent[{provider}]` | `{provider.upper()}_API_KEY` |" in page
        assert extras[provider][0].startswith(f"livekit-plugins-{provider}>=")
