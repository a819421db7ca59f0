"""What every kind of speech gives to a lesson."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from livekit.agents import NotGivenOr, llm, stt, tts
from livekit.plugins import openai

from emma_agent.listening import Tuning
from emma_agent.settings import Endpoint, Settings, TurnDetection

__all__ = ["Speech", "base_url", "tells_logprobs", "text_model"]


@runtime_checkable
class Speech(Protocol):
    """What one lesson hears, thinks and speaks with."""

    @property
    def stt(self) -> NotGivenOr[stt.STT[Any]]:
        """NOT_GIVEN where the model hears for itself."""

    @property
    def llm(self) -> llm.LLM[Any] | llm.RealtimeModel:
        """What answers."""

    @property
    def tts(self) -> NotGivenOr[tts.TTS[Any]]:
        """NOT_GIVEN where the model speaks for itself."""

    @property
    def writer(self) -> openai.LLM | None:
        """For what is written and not spoken, a summary; None where there is no such model."""

    @property
    def turn_detection(self) -> TurnDetection:
        """As the settings have it."""

    def tune(self, tuning: Tuning) -> None:
        """Fit the models to a lesson; again whenever that changes."""


def text_model(settings: Settings, endpoint: Endpoint) -> openai.LLM:
    """The language model of text."""
    return openai.LLM(model=settings.llm_model, api_key=endpoint.key, base_url=base_url(endpoint))


def base_url(endpoint: Endpoint) -> str:
    """The address as LiveKit's plugins want it.

    Never left to them: they would read OPENAI_BASE_URL from the environment, where a part may
    have a key of its own for OpenAI itself.
    """
    return endpoint.base_url or "https://api.openai.com/v1"


def tells_logprobs(transcriber: str) -> bool:
    """Whether OpenAI's model of that name says how probable each token was, if it is asked to."""
    named = ("gpt-4o-transcribe", "gpt-4o-mini-transcribe")
    return transcriber.startswith(named) and "diarize" not in transcriber
