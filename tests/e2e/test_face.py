"""A face in a real room: it speaks for Emma, and when it leaves she speaks for herself again.

The face is a participant like those that providers bring: it gets her voice as a stream of data, plays
it as a track of its own, and tells when it has played it. The student tells who is heard.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import numpy as np
import pytest
from livekit import api, rtc
from livekit.agents import AgentSession, APIConnectOptions, tts, utils
from livekit.agents.testing import fake_job_context
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.agents.voice.avatar import (
    AudioSegmentEnd,
    AvatarSession,
    DataStreamAudioOutput,
    DataStreamAudioReceiver,
)

from emma_agent import avatar
from emma_agent.avatar import keep_voice, show_talking_head
from emma_agent.context import Avatar, TalkingHead
from emma_agent.convex_local import ROOT
from emma_agent.demo.children import Child
from emma_agent.demo.livekit_server import LiveKitServer
from emma_agent.demo.plan import clean_environment
from emma_agent.lesson import LessonState
from emma_agent.tutor import Tutor
from tests.support.answering import until_it_answers
from tests.support.lessons import known_student, lesson_of
from tests.support.scripted_llm import ScriptedLLM

FACE = "fake-avatar-agent"
RATE = 24_000
LOUD = 1_000
QUIET_S = 0.6


class Tone(tts.TTS[Any]):
    """A voice that hums: for `seconds`, whatever it is to say."""

    def __init__(self) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=False), sample_rate=RATE, num_channels=1
        )
        self.seconds = 1.0

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _Hum(tts=self, input_text=text, conn_options=conn_options)


class _Hum(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        voice = self._tts
        assert isinstance(voice, Tone)
        times = np.arange(int(RATE * voice.seconds)) / RATE
        samples = (8_000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
        output_emitter.initialize(
            request_id="hum", sample_rate=RATE, num_channels=1, mime_type="audio/pcm"
        )
        output_emitter.push(samples.tobytes())
        output_emitter.flush()


class FakeFace(AvatarSession[Any]):
    """What a provider's plugin does in the job; the provider itself is `face_in`."""

    def __init__(self, **_: Any) -> None:
        super().__init__()

    @property
    def avatar_identity(self) -> str:
        return FACE

    async def start(self, agent_session: AgentSession[Any], room: rtc.Room) -> None:
        await super().start(agent_session, room)
        sink = DataStreamAudioOutput(room, destination_identity=FACE, sample_rate=RATE)
        agent_session.output.replace_audio_tail(sink)


class Server:
    """The LiveKit server, and ways in."""

    def __init__(self, server: LiveKitServer) -> None:
        self._server = server

    @asynccontextmanager
    async def room(self, identity: str, *, agent: bool = False) -> AsyncIterator[rtc.Room]:
        token = api.AccessToken(self._server.api_key, self._server.api_secret)
        grants = api.VideoGrants(
            room_join=True, room="lesson", agent=agent, can_update_own_metadata=True
        )
        token = token.with_identity(identity).with_grants(grants)
        if agent:
            token = token.with_kind("agent")
        if identity == FACE:
            token = token.with_attributes({"lk.publish_on_behalf": "emma"})
        room = rtc.Room()
        await room.connect(self._server.url, token.to_jwt())
        try:
            yield room
        finally:
            await room.disconnect()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    chosen = LiveKitServer.choose(ROOT)
    env = {**clean_environment(), **chosen.env}
    child = Child("livekit", chosen.command, env=env, log=tmp_path / "livekit.log")
    try:
        async with aiohttp.ClientSession() as http:
            await until_it_answers(http, chosen.health_url)
        yield Server(chosen)
    finally:
        await child.stop(grace_s=2.0)


class Ear:
    """Who is heard by the student."""

    def __init__(self, room: rtc.Room) -> None:
        self._heard: dict[str, asyncio.Event] = {}
        self._sound = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        room.on("track_subscribed", self._on_track)

    async def is_left_in_peace(self) -> None:
        """Until nobody has been heard for a while."""
        with contextlib.suppress(TimeoutError):
            while True:
                self._sound.clear()
                async with asyncio.timeout(QUIET_S):
                    await self._sound.wait()

    async def hears(self, identity: str) -> None:
        """From now on."""
        event = self._heard[identity] = asyncio.Event()
        async with asyncio.timeout(20):
            await event.wait()

    def _on_track(self, track: rtc.Track, _: Any, participant: rtc.RemoteParticipant) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            task = asyncio.create_task(self._listen(track, participant.identity))
            self._tasks.add(task)

    async def _listen(self, track: rtc.Track, identity: str) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1)
        async for event in stream:
            samples = np.frombuffer(event.frame.data, dtype=np.int16)
            if len(samples) and np.abs(samples).max() > LOUD:
                self._sound.set()
                if identity in self._heard:
                    self._heard[identity].set()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def face_in(server: Server, given: asyncio.Queue[float]) -> AsyncIterator[None]:
    """The provider's side: shows a picture, plays what it is given.

    Args:
        given: gets the length of each sentence that it was given whole, before it has played it.
    """
    async with server.room(FACE, agent=True) as room:
        picture = rtc.LocalVideoTrack.create_video_track("face", rtc.VideoSource(16, 16))
        await room.local_participant.publish_track(picture, rtc.TrackPublishOptions())
        source = rtc.AudioSource(RATE, 1, queue_size_ms=10_000)
        sound = rtc.LocalAudioTrack.create_audio_track("voice", source)
        await room.local_participant.publish_track(sound, rtc.TrackPublishOptions())
        receiver = DataStreamAudioReceiver(room, sender_identity="emma")

        async def play() -> None:
            await receiver.start()
            played = 0.0
            async for frame in receiver:
                if isinstance(frame, AudioSegmentEnd):
                    given.put_nowait(played)
                    await source.wait_for_playout()
                    receiver.notify_playback_finished(played, False)
                    played = 0.0
                else:
                    played += frame.duration
                    await source.capture_frame(frame)

        playing = asyncio.create_task(play())
        try:
            yield
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)


@pytest.mark.parametrize(
    ("seconds", "goes_on"), [(3.0, False), (60.0, True)], ids=["all of it given away", "part of it"]
)
async def test_when_the_face_leaves_she_is_heard_herself(
    server: Server, monkeypatch: pytest.MonkeyPatch, seconds: float, goes_on: bool
) -> None:
    plugin = SimpleNamespace(AvatarSession=FakeFace)
    monkeypatch.setattr(avatar, "_import", lambda _: plugin)
    wanted = Avatar(name="Kim", talking_head=TalkingHead(provider="tavus", face="f1"))
    lesson = lesson_of(known_student())
    voice, given = Tone(), asyncio.Queue[float]()
    async with (
        server.room("ana") as student,
        server.room("emma", agent=True) as room,
        utils.http_context.open(),
    ):
        ear = Ear(student)
        said: asyncio.Queue[str] = asyncio.Queue()
        session = AgentSession[LessonState](
            userdata=lesson,
            llm=ScriptedLLM("Hello!", "A long story.", "Where were we?"),
            tts=voice,
            vad=None,
            turn_handling={"turn_detection": "manual"},
        )
        session.on(
            "conversation_item_added",
            lambda event: said.put_nowait(getattr(event.item, "text_content", None) or ""),
        )
        with fake_job_context(room=room):
            async with contextlib.AsyncExitStack() as provider:
                joining = asyncio.create_task(provider.enter_async_context(face_in(server, given)))
                face = await show_talking_head(wanted, session, room)
                await joining
                assert face is not None
                lesson.own(keep_voice(face, session, room), "avatar.keep_voice")
                hears = asyncio.create_task(ear.hears(FACE))
                await session.start(Tutor(lesson), room=room)
                await hears
                while await said.get() != "Hello!":
                    pass
                await ear.is_left_in_peace()
                voice.seconds = seconds
                story = asyncio.create_task(ear.hears(FACE))
                telling = session.generate_reply(user_input="Tell me a story.")
                await story
                if not goes_on:
                    while await given.get() < seconds:
                        pass
                voice.seconds = 1.0
            await ear.hears("emma")
            assert telling.done() is not goes_on
            if goes_on:
                await session.interrupt()
            else:
                while await said.get() != "Where were we?":
                    pass
            await session.aclose()
        await lesson.aclose()
        await ear.aclose()
