"""The scripted language model: keywords in, one sentence or one tool call out.

It stands in for a language model where there is neither key nor network, and says so:
in its greeting, in its model name and in `/v1/models`. It decides from the last thing
that happened, so it also serves a person who talks to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from emma_agent.demo.script_summary import summary_of

__all__ = ["GREETING", "MODEL_NAME", "PROFILE_TOOL", "CallTool", "Reply", "Say", "reply_to"]

MODEL_NAME: Final = "emma-script"
PROFILE_TOOL: Final = "get_student_profile"
GREETING: Final = "Hello, I am Emma. I follow a script today. What did you do yesterday?"


@dataclass(frozen=True, slots=True)
class Say:
    """An answer in words."""

    text: str


@dataclass(frozen=True, slots=True)
class CallTool:
    """An answer that asks for a tool first; `arguments` is JSON text."""

    name: str
    arguments: str = "{}"


Reply = Say | CallTool

_RULES: Final[tuple[tuple[str, str], ...]] = (
    (r"\b(cook|cooked|dinner|lunch|food|eat|ate)\b", "That sounds delicious. What did you cook?"),
    (r"\b(bye|goodbye|see you)\b", "Goodbye. You did very well today."),
    (r"\b(hello|hi|good morning)\b", "Hello. What would you like to talk about?"),
    (r"\b(thanks|thank you)\b", "You are welcome. What shall we practise next?"),
    (r"\b(work|job|office)\b", "That is interesting. What do you like about your work?"),
    (r"\b(travel|holiday|trip|visit)\b", "How nice. Where would you like to go next?"),
)
_SUMMARY: Final = "You write the summary of a language lesson"
_OTHERWISE: Final = "I see. Please tell me a little more."


def reply_to(messages: Sequence[Mapping[str, object]], *, tools: Sequence[str]) -> Reply:
    """Decide what Emma does next.

    Args:
        messages: as in OpenAI's chat completions.
        tools: the names of the tools on offer.
    """
    last = next((m for m in reversed(messages) if m.get("role") in ("user", "tool")), None)
    if last is None:
        return Say(GREETING)
    text = _text_of(last.get("content"))
    if _text_of(messages[0].get("content")).startswith(_SUMMARY):
        return Say(summary_of(text))
    if last["role"] == "tool":
        return Say(_about_profile(text))
    said = text.lower()
    if re.search(r"\bprofile\b|\babout me\b|\bmy level\b", said):
        if PROFILE_TOOL in tools:
            return CallTool(PROFILE_TOOL)
        return Say("I cannot see your profile from here.")
    return Say(next((answer for rule, answer in _RULES if re.search(rule, said)), _OTHERWISE))


def _text_of(content: object) -> str:
    """OpenAI sends text either plainly or as a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return " ".join(part for part in parts if isinstance(part, str))
    return ""


def _about_profile(output: str) -> str:
    """Put the tool's answer into words; whatever shape it has, never raise."""
    try:
        profile = json.loads(output)
    except ValueError:
        return output[:300] or "Your profile is empty."
    student = profile.get("student", profile) if isinstance(profile, dict) else None
    if not isinstance(student, dict):
        return "Your profile is empty."
    facts = (("your name is", student.get("name")), ("your level is", student.get("level")))
    said = [f"{phrase} {fact}" for phrase, fact in facts if isinstance(fact, str) and fact]
    if not said:
        return "Your profile has nothing in it yet."
    sentence = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return f"{sentence[0].upper()}{sentence[1:]}."
