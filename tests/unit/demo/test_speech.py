"""The offline endpoints, called through LiveKit's own OpenAI plugin as the tutor calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import aiohttp
import numpy as np
import openai as openai_sdk
import pytest
from livekit import rtc
from livekit.agents import llm, utils
from livekit.plugins import openai

from emma_agent.demo import script
from emma_agent.demo.voice import SAMPLE_RATE, Voice


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "emma_agent.demo.speech", "--port", "0", "--exit-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        yield ready["url"]
    finally:
        process.stdin.close()
        try:
            # Closing its stdin is enough: this is how it follows a parent that was killed.
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.stdout.close()


@pytest.fixture
async def http() -> AsyncIterator[None]:
    async with utils.http_context.open():
        yield


@pytest.mark.parametrize(
    "sentence",
    ["Yesterday I cooked dinner for my family.", "Please tell me what is in my student profile."],
)
async def test_whisper_hears_what_the_student_says(base_url: str, sentence: str) -> None:
    stt = openai.STT(model="gpt-4o-mini-transcribe", base_url=base_url, api_key="offline")
    samples = Voice("en-us", words_per_minute=150).say(sentence)
    frame = rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, len(samples))

    event = await stt.recognize([frame], language="en")

    heard = "".join(c for c in event.alternatives[0].text.lower() if c.isalpha() or c == " ")
    assert heard.split() == sentence.lower().rstrip(".").split()


async def test_what_is_not_audio_is_refused_in_openais_way(base_url: str) -> None:
    client = openai_sdk.AsyncOpenAI(base_url=base_url, api_key="offline", max_retries=0)
    with pytest.raises(openai_sdk.BadRequestError, match="not audio"):
        await client.audio.transcriptions.create(
            model="whisper-1", file=("x.wav", b"these are not samples")
        )


@pytest.mark.parametrize("model", ["gpt-4o-mini-tts", "tts-1"])
async def test_the_voice_is_heard_with_the_plugins_defaults(
    base_url: str, http: None, model: str
) -> None:
    """Its default response format is mp3; ours is announced by the content type."""
    tts = openai.TTS(model=model, base_url=base_url, api_key="offline")

    frame = await tts.synthesize("What did you do yesterday?").collect()

    samples = np.frombuffer(frame.data, dtype=np.int16)
    assert frame.sample_rate == SAMPLE_RATE
    assert 1.0 < frame.duration < 4.0
    assert np.abs(samples).max() > 5_000


async def test_the_script_streams_words_then_calls_the_tool(base_url: str) -> None:
    @llm.function_tool(name=script.PROFILE_TOOL)
    async def profile() -> str:
        """The student's profile."""
        return ""

    model = openai.LLM(model="gpt-4o-mini", base_url=base_url, api_key="offline")

    greeting = await model.chat(chat_ctx=llm.ChatContext.empty()).collect()
    asked = llm.ChatContext.empty()
    asked.add_message(role="user", content="Please tell me what is in my student profile.")
    call = await model.chat(chat_ctx=asked, tools=[profile]).collect()

    assert greeting.text.strip() == script.GREETING
    assert [c.name for c in call.tool_calls] == [script.PROFILE_TOOL]


async def test_the_model_list_says_that_it_is_a_script(base_url: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base_url}/models") as reply:
            models = (await reply.json())["data"]
        async with session.get(base_url.removesuffix("/v1") + "/health") as reply:
            health = await reply.json()

    owners = {model["id"]: model["owned_by"] for model in models}
    assert owners[script.MODEL_NAME] == "a script, not a language model"
    assert health == {"ok": True}
