"""A talking head that lends Emma a face, if an avatar asks for one.

The face is a participant of its own that LiveKit's plugin for the provider brings into the room; it
gets Emma's voice and plays it; when it leaves in the middle of a lesson she speaks for herself again. The
plugins are extras (`pip install 'emma-agent[tavus]'`), each asks
for its provider's key in the environment, and none is imported before a lesson wants it. Whatever
fails leaves Emma her voice alone, with one line in the log. LiveKit never takes the face for the
student: it is of the kind "agent", and publishes on Emma's behalf.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.voice.avatar import AvatarSession
from livekit.agents.voice.room_io import AudioOutputOptions

# LiveKit makes one only where no face has taken the voice, and has no public way to make another.
from livekit.agents.voice.room_io._output import _ParticipantAudioOutput as RoomVoice

from emma_agent.context import Avatar, TalkingHead
from emma_agent.lesson import LessonState
from emma_agent.logs import get_logger
from emma_agent.prompt import entry

__all__ = ["PROVIDERS", "keep_voice", "show_talking_head"]

log = get_logger(__name__)

# The student waits for the greeting meanwhile.
JOIN_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S: Final = 3.0

# Any: the plugins are no dependency of ours, and their types are not there to check against.
_Make = Callable[[Any, Avatar, TalkingHead], AvatarSession[Any]]


def _simli(plugin: Any, _avatar: Avatar, head: TalkingHead) -> AvatarSession[Any]:
    # The only one that does not read its key itself.
    config = plugin.SimliConfig(api_key=os.environ["SIMLI_API_KEY"], face_id=head.face)
    session: AvatarSession[Any] = plugin.AvatarSession(simli_config=config)
    return session


PROVIDERS: Final[Mapping[str, _Make]] = {
    "anam": lambda plugin, avatar, head: plugin.AvatarSession(
        persona_config=plugin.PersonaConfig(name=avatar.name, avatarId=head.face)
    ),
    "bey": lambda plugin, _, head: plugin.AvatarSession(avatar_id=head.face),
    "simli": _simli,
    "tavus": lambda plugin, _, head: plugin.AvatarSession(face_id=head.face),
}
"""By the name of the plugin, which is that of our extra too: how its session is made."""


async def show_talking_head(
    avatar: Avatar | None, agent_session: AgentSession[Any], room: rtc.Room
) -> AvatarSession[Any] | None:
    """Bring the avatar's face into the room; call it before the session starts.

    Returns:
        the face, in the room; None if there is none, and Emma speaks for herself.
    """
    head = avatar.talking_head if avatar else None
    if avatar is None or head is None:
        return None
    if (make := PROVIDERS.get(head.provider)) is None:
        _go_on_without(
            head, error="unknown", remedy=f"choose one of {', '.join(PROVIDERS)} in the avatar"
        )
        return None
    try:
        plugin = _import(head.provider)
    except ImportError:
        _go_on_without(
            head, error="ImportError", remedy=f"pip install 'emma-agent[{head.provider}]'"
        )
        return None
    face: AvatarSession[Any] | None = None
    try:
        async with asyncio.timeout(JOIN_TIMEOUT_S):
            face = make(plugin, avatar, head)
            await face.start(agent_session, room)
            await face.wait_for_join(timeout=None)
    except Exception as error:  # noqa: BLE001  somebody else's code, and the lesson is held without
        # It may have taken the voice already; the room's own is put in place at the start.
        agent_session.output.audio = None
        if face is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(face.aclose(), _CLOSE_TIMEOUT_S)
        _go_on_without(
            head,
            error=type(error).__name__,
            remedy=f"see that the {head.provider} key in the environment and the face are right",
        )
        return None
    return face


async def keep_voice(
    face: AvatarSession[Any], agent_session: AgentSession[LessonState], room: rtc.Room
) -> None:
    """Give her voice back to the room when the face leaves it; owned by the lesson.

    A sentence goes on in it. What was already given to the face is lost; if that was all of it, she
    says where they were.
    """
    await _until_gone(room, face.avatar_identity)
    if not room.isconnected():
        return  # The lesson is over, and everybody leaves.
    speech = agent_session.current_speech
    log.warning(
        "avatar.left",
        provider=face.provider,
        remedy="she speaks for herself for the rest of the lesson; ask the provider why",
    )
    options = AudioOutputOptions()
    voice = RoomVoice(
        room,
        sample_rate=options.sample_rate,
        num_channels=options.num_channels,
        track_publish_options=options.track_publish_options,
    )
    try:
        # First, so that nothing more is given to the face.
        agent_session.output.replace_audio_tail(voice)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(face.aclose(), _CLOSE_TIMEOUT_S)
        await voice.start()
        if speech is not None and speech.done():
            step = agent_session.userdata.step
            agent_session.generate_reply(instructions=entry(step, resumed=True))
        await asyncio.Event().wait()  # Until the lesson ends.
    finally:
        await voice.aclose()


async def _until_gone(room: rtc.Room, identity: str) -> None:
    gone = asyncio.Event()

    def on_gone(participant: rtc.RemoteParticipant) -> None:
        if participant.identity == identity:
            gone.set()

    room.on("participant_disconnected", on_gone)
    try:
        if identity in room.remote_participants:
            await gone.wait()
    finally:
        room.off("participant_disconnected", on_gone)


def _import(provider: str) -> ModuleType:
    return importlib.import_module(f"livekit.plugins.{provider}")


def _go_on_without(head: TalkingHead, *, error: str, remedy: str) -> None:
    log.warning("avatar.voice_only", provider=head.provider, error=error, remedy=remedy)
