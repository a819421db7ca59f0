"""The models: what they are told, and that no audio goes to anybody else."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from livekit import rtc
from livekit.agents import (
    NOT_GIVEN,
    AgentSession,
    APIConnectOptions,
    APIStatusError,
    inference,
    stt,
    utils,
)
from livekit.plugins import openai

from emma_agent.listening import Tuning, pause_for, turn_handling
from emma_agent.logs import configure_logging
from emma_agent.settings import Settings
from emma_agent.speech import (
    PipelineSpeech,
    RealtimeSpeech,
    build_speech,
    pipeline as pipeline_module,
    realtime as realtime_module,
    until_written,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("LIVEKIT_", "OPENAI_", "EMMA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")


def speech() -> PipelineSpeech:
    models = build_speech(Settings.load())
    assert isinstance(models, PipelineSpeech)
    return models


@pytest.fixture
def realtime(monkeypatch: pytest.MonkeyPatch) -> RealtimeSpeech:
    monkeypatch.setenv("EMMA_SPEECH", "realtime")
    models = build_speech(Settings.load())
    assert isinstance(models, RealtimeSpeech)
    return models


def told(model: Any) -> Any:
    """What LiveKit's plugin will send; it has no public view of it."""
    return model._opts


def test_a_lesson_in_one_language_is_heard_in_it() -> None:
    models = speech()
    models.tune(Tuning(language="en-GB", one_language=True, rate=0.9))
    assert [str(code) for code in told(models.stt).languages] == ["en"]
    assert told(models.tts).speed == 0.9


def test_otherwise_the_language_is_detected_also_when_that_changes() -> None:
    models = speech()
    models.tune(Tuning())
    assert told(models.stt).languages == []
    models.tune(Tuning(language="en-GB", one_language=True))
    models.tune(Tuning(language="en-GB"))
    assert told(models.stt).languages == []


@pytest.mark.parametrize(("rate", "told_rate"), [(0.0, 0.25), (9.0, 4.0)])
def test_a_rate_that_the_voice_refuses_is_brought_into_its_range(
    rate: float, told_rate: float
) -> None:
    models = speech()
    models.tune(Tuning(rate=rate))
    assert told(models.tts).speed == told_rate


class Ear:
    """A server that writes down what it is told to; a status refuses, None is silence."""

    def __init__(self, *answers: dict[str, Any] | int | None) -> None:
        self.asked: list[dict[str, str]] = []
        self._answers = [*answers]

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/v1/audio/transcriptions", self._write_down)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}/v1"
        finally:
            await runner.cleanup()

    async def _write_down(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.asked.append({name: text for name, text in form.items() if isinstance(text, str)})
        answer = self._answers.pop(0)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, int):
            return web.json_response({"error": {"message": "no"}}, status=answer)
        return web.json_response(answer)


async def heard(
    ear: Ear,
    monkeypatch: pytest.MonkeyPatch,
    *,
    model: str = "gpt-4o-mini-transcribe",
    tuning: Tuning | None = None,
    times: int = 1,
) -> list[stt.SpeechEvent]:
    """What is heard of `times` moments of speech."""
    monkeypatch.setenv("EMMA_STT_MODEL", model)
    async with ear.serve() as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        models = speech()
        models.tune(tuning or Tuning(language="en-GB"))
        options = APIConnectOptions(max_retry=0)
        sound = rtc.AudioFrame(bytes(4800), 24_000, 1, 2400)
        return [await models.stt.recognize(sound, conn_options=options) for _ in range(times)]


@pytest.mark.parametrize(("said", "taken"), [("Um…", []), ("", []), ("Um, yes.", ["Um, yes."])])
async def test_a_hesitation_is_taken_for_silence(
    said: str, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [event] = await heard(Ear({"text": said}), monkeypatch)
    assert [alternative.text for alternative in event.alternatives] == taken


@pytest.mark.parametrize("trouble", ["refused", "silent"])
async def test_an_utterance_that_cannot_be_written_down_ends_no_hearing(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trouble == "silent":
        monkeypatch.setattr(pipeline_module, "_HEARD_WITHIN_S", 0.1)
    ear = Ear(*[500 if trouble == "refused" else None] * 2)
    async with ear.serve() as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        ears = speech().stt
        errors: list[stt.STTError] = []
        ears.on("error", errors.append)
        options = APIConnectOptions(max_retry=1, retry_interval=0.0)
        sound = rtc.AudioFrame(bytes(4800), 24_000, 1, 2400)
        event = await ears.recognize(sound, conn_options=options)
    assert event.alternatives == []
    assert [error.recoverable for error in errors] == [True, False]


HALVES = [{"token": "I", "logprob": math.log(0.9)}, {"token": " goed", "logprob": math.log(0.4)}]
SEGMENTS = [
    {"avg_logprob": math.log(0.9), "tokens": [1]},
    {"avg_logprob": math.log(0.4), "tokens": [2]},
]


@pytest.mark.parametrize(
    ("model", "asked", "answer", "confidence"),
    [
        (
            "gpt-4o-mini-transcribe",
            {"response_format": "json", "include[]": "logprobs"},
            {"text": "I goed", "logprobs": HALVES},
            0.6,
        ),
        (
            "whisper-1",
            {"response_format": "verbose_json"},
            {"text": "I goed", "duration": 1.0, "language": "english", "segments": SEGMENTS},
            0.6,
        ),
        (
            "whisper-1",
            {"response_format": "verbose_json"},
            {"text": "I goed", "duration": 1.0},
            0.0,
        ),
        ("gpt-4o-transcribe-diarize", {"response_format": "json"}, {"text": "I goed"}, 0.0),
        ("large-v3", {"response_format": "json"}, {"text": "I goed"}, 0.0),
    ],
)
async def test_how_sure_the_model_is_of_what_it_wrote_is_heard_too(
    model: str,
    asked: dict[str, str],
    answer: dict[str, Any],
    confidence: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model may have written what the student meant, and not what they said."""
    ear = Ear(answer)
    [event] = await heard(ear, monkeypatch, model=model)
    [said] = event.alternatives
    assert said.text == "I goed"
    assert said.confidence == pytest.approx(confidence)
    assert ear.asked == [{"model": model, **asked}]


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("gpt-4o-mini-transcribe", {"text": "I goed", "logprobs": [-0.1, {"token": "I"}]}),
        ("gpt-4o-mini-transcribe", {"text": "I goed", "languages": ["en"], "language": 7}),
        ("whisper-1", {"text": "I goed", "segments": [{"id": 0}, "I goed"]}),
    ],
)
async def test_what_a_server_tells_in_another_way_makes_nobody_deaf(
    model: str, answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    [event] = await heard(Ear(answer), monkeypatch, model=model)
    [said] = event.alternatives
    assert (said.text, said.language, said.confidence) == ("I goed", "", 0.0)


async def test_a_server_that_cannot_say_how_sure_it_is_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ear = Ear(400, {"text": "I goed"}, {"text": "home"})
    events = await heard(ear, monkeypatch, times=2)
    assert [event.alternatives[0].text for event in events] == ["I goed", "home"]
    assert ["include[]" in asked for asked in ear.asked] == [True, False, False]


@pytest.mark.parametrize(
    ("model", "tuning", "answer", "language"),
    [
        ("whisper-1", Tuning(), {"text": "Hola", "language": "spanish", "duration": 1.0}, "es"),
        ("gpt-transcribe", Tuning(), {"text": "Hola", "languages": [{"code": "es"}]}, "es"),
        ("large-v3", Tuning(), {"text": "Hola", "language": "es"}, "es"),
        ("large-v3", Tuning(), {"text": "Hola"}, ""),
        ("large-v3", Tuning(language="en-GB", one_language=True), {"text": "Hello"}, "en"),
        ("gpt-transcribe", Tuning(language="en-GB", one_language=True), {"text": "Hello"}, "en"),
    ],
)
async def test_each_utterance_has_the_language_that_it_was_heard_in(
    model: str,
    tuning: Tuning,
    answer: dict[str, Any],
    language: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [event] = await heard(Ear(answer), monkeypatch, model=model, tuning=tuning)
    assert event.alternatives[0].language == language


class OneVoice:
    """A speech server that has one voice, and refuses the others as `status` says."""

    def __init__(self, *, status: int = 400) -> None:
        self.asked: list[str] = []
        self._status = status

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/v1/audio/speech", self._speak)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}/v1"
        finally:
            await runner.cleanup()

    async def _speak(self, request: web.Request) -> web.Response:
        voice = (await request.json())["voice"]
        self.asked.append(voice)
        if voice != "coral":
            return web.json_response({"error": {"message": "no such voice"}}, status=self._status)
        return web.Response(body=bytes(9600), content_type="audio/pcm")


async def test_a_voice_that_the_server_refuses_gives_way_to_the_configured_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure_logging()
    server = OneVoice()
    async with server.serve() as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        models = speech()
        for rate in (1.0, 0.9):
            # Tuned again by whatever changes in the lesson.
            models.tune(Tuning(voice="ghost", rate=rate))
            async with models.tts.synthesize("Hello.") as sentence:
                assert [each async for each in sentence]
        await models.tts.aclose()
    assert server.asked == ["ghost", "coral", "coral"]
    [line] = [each for each in caplog.records if each.getMessage() == "speech.voice_refused"]
    assert line.__dict__["voice"] == "ghost"


async def test_a_server_that_fails_is_not_taken_for_one_without_the_voice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = OneVoice(status=500)
    async with server.serve() as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        models = speech()
        models.tune(Tuning(voice="ghost"))
        options = APIConnectOptions(max_retry=0)
        with pytest.raises(APIStatusError):
            async with models.tts.synthesize("Hello.", conn_options=options) as sentence:
                await anext(aiter(sentence))
        await models.tts.aclose()
    assert server.asked == ["ghost"]
    assert told(models.tts).voice == "ghost"


def test_the_avatars_voice_speaks_and_the_configured_one_without() -> None:
    models = speech()
    models.tune(Tuning(voice="sage"))
    assert told(models.tts).voice == "sage"
    models.tune(Tuning())
    assert told(models.tts).voice == "coral"


def test_in_realtime_the_voice_is_chosen_before_it_speaks(realtime: RealtimeSpeech) -> None:
    realtime.tune(Tuning(voice="sage"))
    assert told(realtime.llm).voice == "sage"
    realtime.tune(Tuning(voice="ash"))
    assert told(realtime.llm).voice == "sage"


def test_audio_that_comes_as_events_is_taken_as_samples() -> None:
    assert told(speech().tts).response_format == "pcm"


def test_every_model_is_asked_at_the_configured_address() -> None:
    models = speech()
    for model in (models.stt, models.llm, models.tts):
        assert str(model._client.base_url) == "http://127.0.0.1:9/v1/"


def test_each_model_may_have_a_server_and_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of OpenAI's is nothing that another server should learn."""
    monkeypatch.setenv("OPENAI_API_KEY", "openai-secret")
    monkeypatch.setenv("EMMA_STT_BASE_URL", "http://127.0.0.1:11/v1")
    monkeypatch.setenv("EMMA_TTS_BASE_URL", "http://127.0.0.1:12/v1")
    monkeypatch.setenv("EMMA_TTS_API_KEY", "voice-secret")
    models = speech()
    asked = [(str(m._client.base_url), m._client.api_key) for m in (models.stt, models.llm)]
    assert asked == [
        ("http://127.0.0.1:11/v1/", "unused"),
        ("http://127.0.0.1:9/v1/", "openai-secret"),
    ]
    assert models.tts._client.api_key == "voice-secret"


def test_offline_is_the_pipeline_on_this_machine_without_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setenv("OPENAI_API_KEY", "openai-secret")
    monkeypatch.setenv("EMMA_SPEECH", "offline")
    models = speech()
    for model in (models.stt, models.llm, models.tts):
        assert str(model._client.base_url) == "http://127.0.0.1:8901/v1/"
        assert model._client.api_key == "unused"


def test_in_realtime_one_model_does_it_all_at_the_configured_address(
    realtime: RealtimeSpeech,
) -> None:
    assert told(realtime.llm).base_url == "http://127.0.0.1:9/v1"
    assert (realtime.stt, realtime.tts) == (NOT_GIVEN, NOT_GIVEN)
    assert isinstance(realtime.writer, openai.LLM)


def test_in_realtime_what_the_student_says_is_written_down_in_the_lessons_language(
    realtime: RealtimeSpeech,
) -> None:
    realtime.tune(Tuning(language="en-GB", one_language=True))
    heard_as = told(realtime.llm).input_audio_transcription
    assert (heard_as.model, heard_as.language) == ("gpt-4o-mini-transcribe", "en")
    realtime.tune(Tuning(language="en-GB"))
    assert told(realtime.llm).input_audio_transcription.language is None


def test_in_realtime_turns_are_taken_by_level_and_on_this_machine(
    realtime: RealtimeSpeech,
) -> None:
    """The server only says where speech begins and ends; it neither answers nor interrupts."""
    realtime.tune(Tuning(level="A1"))
    assert realtime.llm.capabilities.turn_detection is False
    segments = told(realtime.llm).turn_detection
    assert (segments.create_response, segments.interrupt_response) == (False, False)
    assert segments.silence_duration_ms == 900
    assert 1000 * pause_for("A1") > segments.silence_duration_ms


@pytest.mark.parametrize(("rate", "told_rate"), [(0.0, 0.25), (9.0, 1.5)])
def test_in_realtime_the_rate_stays_in_the_models_range(
    realtime: RealtimeSpeech, rate: float, told_rate: float
) -> None:
    realtime.tune(Tuning(rate=rate))
    assert told(realtime.llm).speed == told_rate


def test_in_realtime_without_a_server_for_text_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setenv("EMMA_SPEECH", "realtime")
    monkeypatch.setenv("EMMA_REALTIME_BASE_URL", "http://127.0.0.1:9/v1")
    assert build_speech(Settings.load()).writer is None


@pytest.mark.parametrize("mode", ["pipeline", "realtime", "offline"])
@pytest.mark.parametrize("detection", ["v1-mini", "vad"])
def test_no_audio_goes_to_livekits_cloud(
    mode: str, detection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiveKit's defaults in development are its cloud's detectors; a key makes them work."""
    monkeypatch.setenv("LIVEKIT_DEV_MODE", "1")
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "secret")
    monkeypatch.setenv("EMMA_TURN_DETECTION", detection)
    monkeypatch.setenv("EMMA_SPEECH", mode)
    speech = build_speech(Settings.load())
    handling = turn_handling(Tuning(), speech.turn_detection)
    assert handling["interruption"]["mode"] == "vad"
    detector = handling["turn_detection"]
    if detection == "vad":
        assert detector == "vad"
    else:
        assert isinstance(detector, inference.TurnDetector)
        assert detector.model == "turn-detector-v1-mini"
    for model in (speech.stt, speech.llm, speech.tts):
        assert not type(model).__module__.startswith("livekit.agents.inference")


@pytest.mark.parametrize(
    ("transcriber", "asked"), [("gpt-4o-mini-transcribe", 1), ("whisper-1", 0)]
)
async def test_in_realtime_the_server_is_asked_how_sure_it_is_of_what_it_wrote(
    monkeypatch: pytest.MonkeyPatch, transcriber: str, asked: int
) -> None:
    """Of each connection; LiveKit would write that it is quite sure."""
    monkeypatch.setenv("EMMA_SPEECH", "realtime")
    monkeypatch.setenv("EMMA_STT_MODEL", transcriber)
    models = build_speech(Settings.load())
    assert isinstance(models, RealtimeSpeech)
    sent: list[Any] = []
    async with utils.http_context.open():
        session = models.llm.session()
        monkeypatch.setattr(session, "send_event", sent.append)
        try:
            for _ in range(2):
                session.emit("openai_server_event_received", {"type": "session.created"})
                session.emit("openai_server_event_received", {"type": "session.updated"})
        finally:
            await session.aclose()
    include = [event["session"]["include"] for event in sent]
    assert include == [["item.input_audio_transcription.logprobs"]] * 2 * asked


COMMITTED = "input_audio_buffer.committed"
TRANSCRIBED = "conversation.item.input_audio_transcription"


@pytest.mark.parametrize("end", [f"{TRANSCRIBED}.completed", f"{TRANSCRIBED}.failed"])
async def test_the_end_of_a_lesson_waits_for_what_is_not_written_down_yet(
    realtime: RealtimeSpeech, end: str
) -> None:
    model = realtime.llm
    assert await model.written_down(timeout_s=0)
    async with utils.http_context.open():
        session = model.session()
        try:
            session.emit("openai_server_event_received", {"type": COMMITTED, "item_id": "a"})
            assert not await model.written_down(timeout_s=0)
            waiting = asyncio.create_task(model.written_down(timeout_s=5))
            session.emit("openai_server_event_received", {"type": end, "item_id": "a"})
            assert await waiting
        finally:
            await session.aclose()


async def test_what_is_never_written_down_ends_in_one_line_and_not_in_waiting(
    realtime: RealtimeSpeech, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure_logging()
    monkeypatch.setattr(realtime_module, "_WRITTEN_TIMEOUT_S", 0.01)
    session: AgentSession[None] = AgentSession(llm=realtime.llm, vad=None)
    await until_written(session)
    assert caplog.records == []
    realtime.llm._follow({"type": COMMITTED, "item_id": "a"})
    await until_written(session)
    assert [line.getMessage() for line in caplog.records] == ["speech.transcript_missing"]
