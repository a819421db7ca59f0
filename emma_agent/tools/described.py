"""What a model is told of each tool, worked out once.

LiveKit works the JSON schema of every tool out anew in each request, by making a pydantic model of
its signature: 2 to 3 ms per tool on the loop that carries the audio, before the request is sent. A
tool that brings its schema along costs nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from livekit.agents import function_tool, llm

__all__ = ["described"]

# By the identity of what describes it: a tool that is a method is another object for each agent, and
# is described by the same. Held here, so that no other gets its place in memory.
_known: Final[dict[int, tuple[object, llm.Tool]]] = {}


def described(tools: Sequence[llm.Tool]) -> list[llm.Tool]:
    """The same tools for a request to a model of text, with OpenAI's strict schemas.

    They tell the model; what it then calls is the agent's own tool.
    """
    return [_described(tool) if isinstance(tool, llm.FunctionTool) else tool for tool in tools]


def _described(tool: llm.FunctionTool[..., Any]) -> llm.Tool:
    info = tool.info
    if id(info) not in _known:
        [request] = llm.ToolContext([tool]).parse_function_tools("openai", strict=True)
        _known[id(info)] = (
            info,
            function_tool(_not_called, raw_schema=request["function"], flags=info.flags),
        )
    return _known[id(info)][1]


async def _not_called(raw_arguments: dict[str, object]) -> None:
    raise NotImplementedError
