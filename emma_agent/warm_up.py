"""Loads early what the first seconds of a lesson need; imported for its effect.

LiveKit's forkserver imports it once and every job process inherits the result. LiveKit
warms what it uses itself (`livekit/agents/ipc/_preload.py`); these were left, each a stall
of 5 to 200 ms between a student's joining and Emma's first word. Safe to fork: modules
and tables, no thread, no connection.
"""

import time
from typing import get_args

import anyio._backends._asyncio  # noqa: F401
import livekit.agents.llm.async_toolset  # noqa: F401
import openai.lib.streaming.chat  # noqa: F401
from livekit.agents import llm
from livekit.agents.tokenize import basic

import emma_agent.server  # noqa: F401
from emma_agent.prompt import assemble, entry
from emma_agent.records import Step
from emma_agent.teaching import Snapshot
from emma_agent.tools import TOOLS
from emma_agent.tools.described import described
from livekit.plugins.convex import (
    AgentKey,
    HandoffRecord,
    MessageRecord,
    SessionStartedRecord,
)
from livekit.plugins.convex.encoding import encode

# Builds the table of hyphenation, by which the transcript keeps pace with the voice.
basic.hyphenate_word("hyphenation")
# Reads the prompts.
for step in get_args(Step):
    assemble(Snapshot(step=step))
    entry(step)
    entry(step, resumed=True)
# Works the tools' schemas out.
described(TOOLS)
# Loads what signs, a library of its own.
AgentKey.generate().sign({})
# Builds what checks a message, and what encodes the first records.
hello = llm.ChatMessage(role="assistant", content=["Hello!"], metrics={"llm_node_ttft": 0.1})
start = SessionStartedRecord(
    created_at=time.time(), session_key="s", room="r", job_id="j", agent_name="a"
)
for record in (
    start,
    MessageRecord.from_item(hello, created_at=time.time()),
    HandoffRecord(created_at=time.time(), item_id="i", new_agent="a"),
):
    encode(record)
