"""What job processes inherit: in a process of its own, as LiveKit's forkserver imports it."""

from __future__ import annotations

import os
import subprocess
import sys

_INHERITED = """
import emma_agent.warm_up
import os, pathlib, sys, threading
from livekit.agents import llm

assert threading.active_count() == 1, threading.enumerate()
sockets = [fd for fd in pathlib.Path("/proc/self/fd").iterdir() if os.path.exists(fd)
           and os.readlink(fd).startswith("socket:")]
assert not sockets, sockets

# From here on a job: it opens no file and imports nothing for its first words.
def refuse(event, arguments):
    if event in ("open", "import"):
        raise AssertionError(f"{event} {arguments[0]}")

def again(tool):
    raise AssertionError("a schema is worked out again")

from emma_agent.prompt import assemble, entry
from emma_agent.teaching import Snapshot
from emma_agent.tools import TOOLS
from emma_agent.tools.described import described
from livekit.plugins.convex import AgentKey
key = AgentKey.generate()

llm.utils.build_strict_openai_schema = again
sys.addaudithook(refuse)
assemble(Snapshot())
entry("greeting")
llm.ToolContext(described(TOOLS)).parse_function_tools("openai", strict=True)
key.sign({"sub": "student:1"})
"""


def test_a_job_inherits_what_its_first_words_need_and_nothing_that_cannot_be_forked() -> None:
    environment = {**os.environ, "EMMA_SPEECH": "offline"}
    ended = subprocess.run(
        [sys.executable, "-c", _INHERITED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr
