"""A simulated student: joins with a signed token, speaks real audio, waits for real answers.

Nothing of the agent's insides is used: what the student knows is what any participant of the
room can hear and read (sound, the `lk.transcription` stream, the `lk.agent.state` attribute).
So what it says and hears is a witness that stands outside the recorder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from livekit import api, rtc

from emma_agent.demo.exchange import Exchange, Heard, Said
from emma_agent.demo.voice import SAMPLE_RATE, Voice

__all__ = ["Student", "StudentError", "Ticket"]

VOICE: Final = "en-us"
"""Not Emma's; Whisper tiny hears it well at the pace below."""
WORDS_PER_MINUTE: Final = 155

_FRAME_SAMPLES: Final = SAMPLE_RATE // 50
# Sound that lies ready ahead of the clock: what a busy machine may delay without a gap.
_AHEAD_MS: Final = 400
# Root mean square of a 20 ms frame, full scale 32768. Silence in the room is below 10.
_LOUD: Final = 200.0
# A pause between two sentences of one answer is shorter than this.
_QUIET_S: Final = 0.6
_SAY_MARGIN_S: Final = 15.0
_LEAVE_S: Final = 5.0


class StudentError(RuntimeError):
    """The lesson did not go on; the message is one plain sentence."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a student gets from the school's backend: where to go, and a signed token."""

    url: str
    token: str
    room: str
    identity: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The job's: who dispatches Emma again says the same."""

    @classmethod
    def issue(
        cls,
        *,
        url: str,
        api_key: str,
        api_secret: str,
        room: str,
        identity: str,
        agent_name: str,
        metadata: dict[str, str],
    ) -> Self:
        """Sign a token that also dispatches the agent (explicit dispatch).

        Args:
            metadata: the job's: `student_id`, `lesson_id`, `session_key`.
        """
        dispatch = api.RoomAgentDispatch(agent_name=agent_name, metadata=json.dumps(metadata))
        token = (
            api.AccessToken(api_key, api_secret)
            .with_identity(identity)
            .with_ttl(timedelta(minutes=10))
            .with_grants(api.VideoGrants(room_join=True, room=room))
            .with_room_config(api.RoomConfiguration(agents=[dispatch]))
            .to_jwt()
        )
        return cls(url=url, token=token, room=room, identity=identity, metadata=metadata)


@dataclass(slots=True)
class _Segment:
    text: str = ""
    finished: bool = False


@dataclass(slots=True)
class _Ear:
    """What has reached the student since it last spoke."""

    segments: dict[str, _Segment] = field(default_factory=dict)
    first_sound_at: float | None = None
    last_sound_at: float | None = None

    def finished(self, now: float) -> bool:
        return (
            self.last_sound_at is not None
            and now - self.last_sound_at >= _QUIET_S
            and any(segment.text.strip() for segment in self.segments.values())
            and all(segment.finished for segment in self.segments.values())
        )


class Student:
    """One participant with a mouth and an ear; use `join`."""

    def __init__(self, ticket: Ticket, *, on_exchange: Callable[[Exchange], None]) -> None:
        """Use `Student.join`."""
        self._ticket = ticket
        self._on_exchange = on_exchange
        self._room = rtc.Room()
        self._voice = Voice(VOICE, words_per_minute=WORDS_PER_MINUTE)
        self._source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=_AHEAD_MS)
        self._to_say: asyncio.Queue[tuple[npt.NDArray[np.int16], asyncio.Future[Said], str]]
        self._to_say = asyncio.Queue()
        self._ear = _Ear()
        self._agent_state = ""
        self._agent_identity: str | None = None
        self._left: str | None = None
        self._over = asyncio.Event()
        self._stays = False
        self._connecting: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.exchanges: list[Exchange] = []
        """Everything said and heard, in order."""

    @classmethod
    @asynccontextmanager
    async def join(
        cls,
        ticket: Ticket,
        *,
        on_exchange: Callable[[Exchange], None] = lambda _: None,
        timeout_s: float = 15.0,
    ) -> AsyncIterator[Self]:
        """Join the room and open the microphone; leave at the end of the block.

        Raises:
            StudentError: the room could not be joined in time.
        """
        student = cls(ticket, on_exchange=on_exchange)
        try:
            try:
                async with asyncio.timeout(timeout_s):
                    await student._connect()
            except (TimeoutError, rtc.ConnectError) as error:
                raise StudentError("The student could not join the LiveKit room.") from error
            yield student
        finally:
            await student._leave()

    @property
    def last_sound_at(self) -> float | None:
        """Unix seconds of the latest sound from Emma since the student last spoke."""
        return self._ear.last_sound_at

    async def listen(self, *, timeout_s: float) -> Heard:
        """Wait until Emma has spoken and is quiet again: her whole answer, as it was heard.

        Raises:
            StudentError: she did not join, did not answer or left.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not (self._agent_state == "listening" and self._ear.finished(time.time())):
                    if self._left is not None:
                        raise StudentError(self._left)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise StudentError(self._what_is_missing(timeout_s)) from None
        ear, self._ear = self._ear, _Ear()
        assert ear.first_sound_at is not None
        assert ear.last_sound_at is not None
        text = " ".join(segment.text.strip() for segment in ear.segments.values())
        heard = Heard(" ".join(text.split()), ear.first_sound_at, ear.last_sound_at)
        self._note(heard)
        return heard

    async def hear_first_sound(self, *, timeout_s: float) -> None:
        """Wait until Emma begins to speak; what she says is not noted.

        Raises:
            StudentError: she did not, or left.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self._ear.first_sound_at is None:
                    if self._left is not None:
                        raise StudentError(self._left)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise StudentError(self._what_is_missing(timeout_s)) from None

    def stay(self) -> None:
        """Stay in the room though Emma is gone, for she may return; forget what was half heard."""
        self._stays = True
        self._ear = _Ear()

    async def wait_until_over(self, *, timeout_s: float) -> bool:
        """Wait until Emma ends the lesson: she leaves, or closes the room. False: she does not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._over.wait()
        return self._over.is_set()

    async def say(self, text: str) -> Said:
        """Say one sentence; returns when its last sound has left the microphone.

        Raises:
            StudentError: the microphone does not work.
        """
        self._ear = _Ear()
        samples = await asyncio.to_thread(self._voice.say, text)
        done: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        self._to_say.put_nowait((samples, done, text))
        try:
            async with asyncio.timeout(len(samples) / SAMPLE_RATE + _SAY_MARGIN_S):
                said = await done
        except TimeoutError:
            raise StudentError(self._left or "The student's microphone hangs.") from None
        self._note(said)
        await asyncio.sleep(max(0.0, said.ended_at - time.time()))
        return said

    def _note(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self._on_exchange(exchange)

    async def _connect(self) -> None:
        room = self._room
        room.on("participant_attributes_changed", self._on_attributes)
        room.on("participant_connected", self._on_participant)
        room.on("participant_disconnected", self._on_participant_left)
        room.on("track_subscribed", self._on_track)
        room.on("disconnected", self._on_disconnected)
        room.register_text_stream_handler("lk.transcription", self._on_transcription)
        self._connecting = asyncio.ensure_future(room.connect(self._ticket.url, self._ticket.token))
        # A connection that is given up half-way goes on below Python and cannot be ended then.
        await asyncio.shield(self._connecting)
        for participant in room.remote_participants.values():
            self._on_participant(participant)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)
        self._own(self._speak())

    async def _leave(self) -> None:
        self._room.off("disconnected", self._on_disconnected)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError, rtc.ConnectError):
            async with asyncio.timeout(_LEAVE_S):
                if self._connecting is not None:
                    await self._connecting
                await self._room.disconnect()
        await self._source.aclose()

    async def _speak(self) -> None:
        """The microphone: never stops; silence where nothing is to be said."""
        silence = np.zeros(_FRAME_SAMPLES, dtype=np.int16)
        while True:
            if self._to_say.empty():
                await self._push(silence)
                continue
            samples, done, text = self._to_say.get_nowait()
            started_at, ended_at = 0.0, 0.0
            for start in range(0, len(samples), _FRAME_SAMPLES):
                frame = samples[start : start + _FRAME_SAMPLES]
                await self._push(frame)
                if _is_loud(frame):
                    ended_at = time.time() + self._source.queued_duration
                    started_at = started_at or ended_at - len(frame) / SAMPLE_RATE
            if not done.cancelled():
                done.set_result(Said(text, started_at, ended_at))

    async def _push(self, samples: npt.NDArray[np.int16]) -> None:
        await self._source.capture_frame(
            rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, len(samples))
        )

    async def _hear(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=20)
        try:
            async for event in stream:
                if _is_loud(np.frombuffer(event.frame.data, dtype=np.int16)):
                    now = time.time()
                    self._ear.first_sound_at = self._ear.first_sound_at or now
                    self._ear.last_sound_at = now
        finally:
            await stream.aclose()

    async def _read(self, reader: rtc.TextStreamReader) -> None:
        attributes = reader.info.attributes or {}
        ear = self._ear
        segment = ear.segments.setdefault(
            attributes.get("lk.segment_id", reader.info.stream_id), _Segment()
        )
        try:
            async for chunk in reader:
                segment.text += chunk
        except rtc.StreamError:
            # It ended with who was killed. What is forgotten may stay unfinished.
            if ear is self._ear:
                raise
            return
        segment.finished = True

    def _on_transcription(self, reader: rtc.TextStreamReader, identity: str) -> None:
        # The student's own words come back on the same topic, in the student's name.
        if identity != self._ticket.identity:
            self._own(self._read(reader))

    def _on_track(
        self,
        track: rtc.Track,
        _publication: rtc.RemoteTrackPublication,
        _participant: rtc.RemoteParticipant,
    ) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self._own(self._hear(track))

    def _on_participant(self, participant: rtc.RemoteParticipant) -> None:
        if participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT:
            self._stays = self._stays and self._agent_identity == participant.identity
            self._agent_identity = participant.identity
            self._agent_state = participant.attributes.get("lk.agent.state", "")

    def _on_attributes(self, changed: dict[str, str], participant: rtc.Participant) -> None:
        if participant.identity == self._agent_identity and "lk.agent.state" in changed:
            self._agent_state = participant.attributes.get("lk.agent.state", "")

    def _on_participant_left(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity == self._agent_identity and not self._stays:
            self._end("Emma left the room before the lesson was over.")

    def _on_disconnected(self, _reason: object) -> None:
        self._end("The student lost the connection to the LiveKit room.")

    def _end(self, why: str) -> None:
        self._left = why
        self._over.set()

    def _what_is_missing(self, waited_s: float) -> str:
        if self._agent_identity is None:
            return f"Emma did not join the room within {waited_s:g} s."
        if self._ear.first_sound_at is None:
            return f"Emma joined, but nothing was heard from her for {waited_s:g} s."
        return f"Emma began to speak, but had not finished after {waited_s:g} s."

    def _own(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(f"The student's audio failed ({type(error).__name__}).")


def _is_loud(samples: npt.NDArray[np.int16]) -> bool:
    if not len(samples):
        return False
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) > _LOUD
