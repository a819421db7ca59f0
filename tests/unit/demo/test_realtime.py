"""The stand-in for OpenAI Realtime: where speech begins and ends, and what is answered to what."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import pytest

from emma_agent.demo import script
from emma_agent.demo.realtime import Conversation, Segmenter
from emma_agent.demo.speech import EMMA_VOICE
from emma_agent.demo.voice import SAMPLE_RATE, Voice


def sound(seconds: float) -> bytes:
    return (np.ones(round(seconds * SAMPLE_RATE)) * 4_000).astype(np.int16).tobytes()


def silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * SAMPLE_RATE))


def test_speech_begins_once_and_ends_once_after_the_silence_asked_for() -> None:
    ear = Segmenter()
    ear.silence_ms = 300
    assert ear.feed(silence(1.0) + sound(0.5)) == [None]
    assert ear.feed(silence(0.28)) == []
    [said] = ear.feed(silence(1.0))
    assert said is not None
    # 0.3 s of what came before and after belongs to it.
    assert len(said) / 2 / SAMPLE_RATE == pytest.approx(1.1, abs=0.1)


def test_a_click_is_no_speech() -> None:
    assert Segmenter().feed(silence(0.2) + sound(0.04) + silence(1.0)) == []


class Client:
    """Plays the tutor's side."""

    def __init__(
        self,
        *,
        late_s: float = 0.0,
        hears: str = "Please tell me what is in my student profile.",
    ) -> None:
        self.hears = hears
        self.received: list[dict[str, Any]] = []
        self.changed = asyncio.Event()
        self.conversation = Conversation(self._take, self._hear, Voice(EMMA_VOICE), late_s)

    async def _take(self, event: dict[str, Any]) -> None:
        self.received.append(event)
        self.changed.set()

    async def _hear(self, _audio: bytes) -> str:
        return self.hears

    async def until(self, kind: str, *, times: int = 1) -> dict[str, Any]:
        async with asyncio.timeout(5):
            while len(found := [e for e in self.received if e["type"] == kind]) < times:
                self.changed.clear()
                await self.changed.wait()
        return found[-1]

    async def speak(self) -> None:
        audio = base64.b64encode(sound(0.5) + silence(1.0)).decode()
        await self.conversation.receive({"type": "input_audio_buffer.append", "audio": audio})


async def test_the_first_answer_is_the_greeting_with_sound() -> None:
    client = Client()
    await client.conversation.receive({"type": "response.create"})
    done = await client.until("response.done")
    assert done["response"]["status"] == "completed"
    kinds = [event["type"] for event in client.received]
    assert kinds.index("response.created") < kinds.index("response.output_audio.delta")
    text = await client.until("response.output_audio_transcript.delta")
    assert text["delta"] == script.GREETING


async def test_a_tool_is_called_and_its_answer_is_put_into_words() -> None:
    client = Client()
    tools = [{"type": "function", "name": script.PROFILE_TOOL}]
    await client.conversation.receive({"type": "session.update", "session": {"tools": tools}})
    await client.speak()
    await client.conversation.receive({"type": "response.create"})
    call = (await client.until("response.output_item.done"))["item"]
    assert (call["type"], call["name"]) == ("function_call", script.PROFILE_TOOL)
    output = {
        "id": "output_1",
        "type": "function_call_output",
        "call_id": call["call_id"],
        "output": '{"name": "Ana", "level": "A2"}',
    }
    await client.conversation.receive({"type": "conversation.item.create", "item": output})
    await client.conversation.receive({"type": "response.create"})
    said = await client.until("response.output_audio_transcript.delta")
    assert said["delta"] == "Your name is Ana and your level is A2."


async def test_the_script_is_told_which_tool_has_answered() -> None:
    client = Client(hears="Please speak slower.")
    tools = [{"type": "function", "name": "set_preference"}]
    await client.conversation.receive({"type": "session.update", "session": {"tools": tools}})
    await client.speak()
    await client.conversation.receive({"type": "response.create"})
    call = (await client.until("response.output_item.done"))["item"]
    output = {
        "id": "output_1",
        "type": "function_call_output",
        "call_id": call["call_id"],
        "output": '{"speech_rate": 0.85}',
    }
    await client.conversation.receive({"type": "conversation.item.create", "item": output})
    await client.conversation.receive({"type": "response.create"})
    said = await client.until("response.output_audio_transcript.delta")
    assert said["delta"].startswith("I speak more slowly now.")


async def test_a_late_transcript_comes_after_the_answer() -> None:
    client = Client(late_s=0.3)
    await client.speak()
    await client.conversation.receive({"type": "response.create"})
    await client.until("response.done")
    await client.until("conversation.item.input_audio_transcription.completed")
    kinds = [event["type"] for event in client.received]
    assert kinds.index("response.done") < kinds.index(
        "conversation.item.input_audio_transcription.completed"
    )


async def test_there_is_nothing_to_commit_where_nothing_was_said() -> None:
    client = Client()
    await client.conversation.receive({"type": "input_audio_buffer.commit"})
    error = (await client.until("error"))["error"]
    assert error["code"] == "input_audio_buffer_commit_empty"
