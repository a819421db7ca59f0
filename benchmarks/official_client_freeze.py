"""How long one query of 500 ms stops the event loop, by client.

    python benchmarks/official_client_freeze.py

Starts convex-local, which answers each query 500 ms late, and prints the longest gap of a heartbeat
of 5 ms while nothing runs, while `convex.ConvexClient.query` runs in `asyncio.to_thread`, and while
`AsyncConvexClient.query` runs. Then the same as one JSON line, in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from itertools import pairwise

import convex
from emma_agent.convex_local import ConvexLocal
from livekit.plugins.convex import AgentToken, AsyncConvexClient

DELAY_S = 0.5
BEAT_S = 0.005
# The official client may hold the interpreter lock for ever: only another process can end that.
TIMEOUT_S = 60.0
FUNCTION = "sessions:recordVersions"


async def longest_gap(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds, at the longest, between two beats of the loop while `work` runs."""
    beats = [time.perf_counter()]

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            beats.append(time.perf_counter())

    heart = asyncio.create_task(beat())
    await work()
    await asyncio.sleep(4 * BEAT_S)
    heart.cancel()
    return max(later - earlier for earlier, later in pairwise(beats))


async def measure(url: str, token: str) -> dict[str, float]:
    """The three gaps, in seconds; both clients are warm."""
    official = convex.ConvexClient(url)
    official.set_auth(token)
    official.query(FUNCTION)
    async with AsyncConvexClient(url, token=token) as ours:
        await ours.query(FUNCTION)
        return {
            "nothing": await longest_gap(lambda: asyncio.sleep(DELAY_S)),
            "to_thread(ConvexClient.query)": await longest_gap(
                lambda: asyncio.to_thread(official.query, FUNCTION)
            ),
            "AsyncConvexClient.query": await longest_gap(lambda: ours.query(FUNCTION)),
        }


def main() -> int:
    """Start Convex, measure in a process of its own, print."""
    with ConvexLocal.start(faults=True) as local:
        late = {"kind": "delay", "delayMs": 1000 * DELAY_S}
        headers = {"Authorization": f"Convex {local.admin_key}", "Content-Type": "application/json"}
        asked = urllib.request.Request(
            f"{local.url}/_local/faults", data=json.dumps(late).encode(), headers=headers
        )
        urllib.request.urlopen(asked, timeout=10).close()
        token = AgentToken(local.agent_key, subject="guest:benchmark").value()
        try:
            measured = subprocess.run(
                [sys.executable, __file__, "--measure", local.url],
                env={**os.environ, "TOKEN": token},
                stdout=subprocess.PIPE,
                timeout=TIMEOUT_S,
                check=True,
            )
        except subprocess.TimeoutExpired:
            sys.stderr.write(f"The process that measures hung for {TIMEOUT_S:g} s.\n")
            return 1
    gaps = json.loads(measured.stdout)
    lines = [f"longest gap of a {1000 * BEAT_S:g} ms heartbeat, one query of {1000 * DELAY_S:g} ms"]
    lines += [f"  {name:<32}{1000 * gap:>7.1f} ms" for name, gap in gaps.items()]
    found = {name: round(1000 * gap, 1) for name, gap in gaps.items()}
    lines.append(json.dumps({"convex": version("convex"), "longest_gap_ms": found}))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        json.dump(asyncio.run(measure(sys.argv[2], os.environ["TOKEN"])), sys.stdout)
    else:
        sys.exit(main())
