"""Loads early what the first seconds of a lesson need; imported for its effect.

LiveKit's forkserver imports it once and every job process inherits the result. LiveKit
warms what it uses itself (`livekit/agents/ipc/_preload.py`); these were left, each a stall
of 40 to 200 ms between a student's joining and Emma's first word. Safe to fork: modules
and tables, no thread, no connection.
"""

import anyio._backends._asyncio  # noqa: F401
import openai.lib.streaming.chat  # noqa: F401
from livekit.agents.tokenize import basic

import emma_agent.server  # noqa: F401
from emma_agent.tools import TOOLS
from emma_agent.tools.described import described

described(TOOLS)
# Builds the table of hyphenation, by which the transcript keeps pace with the voice.
basic.hyphenate_word("hyphenation")
