"""What an AgentSession says to its listeners."""

from __future__ import annotations

from typing import Any

from livekit.agents.llm import ChatMessage
from livekit.agents.voice.events import ConversationItemAddedEvent


def said(role: str, text: str, **fields: Any) -> ConversationItemAddedEvent:
    """A sentence, as LiveKit announces it when it is committed."""
    return ConversationItemAddedEvent(item=ChatMessage(role=role, content=[text], **fields))
