"""Which models Emma hears, thinks and speaks with; EMMA_SPEECH chooses, one file each.

- `pipeline`: speech-to-text, language model and voice, each of any server with OpenAI's API
- `realtime`: OpenAI Realtime, one model for all three
- `offline`: the pipeline, by servers on this machine alone

No audio goes anywhere but to the configured models. LiveKit's defaults would send it to
LiveKit Cloud (`dev` and `console` choose the cloud turn detector and adaptive
interruption), so both are pinned to what runs inside this process (`listening.py`).
"""

from __future__ import annotations

from typing import assert_never

from emma_agent.settings import Settings
from emma_agent.speech.models import Speech
from emma_agent.speech.pipeline import PipelineSpeech
from emma_agent.speech.realtime import RealtimeSpeech, until_written

__all__ = ["PipelineSpeech", "RealtimeSpeech", "Speech", "build_speech", "until_written"]


def build_speech(settings: Settings) -> Speech:
    """The models, not tuned to a lesson yet.

    Takes some hundred milliseconds (each model loads its own TLS certificates): a job
    process does it before it has a job.
    """
    match settings.speech:
        case "pipeline" | "offline":
            return PipelineSpeech.build(settings)
        case "realtime":
            return RealtimeSpeech.build(settings)
        case _:
            assert_never(settings.speech)
