"""The package as LiveKit loads it."""

import subprocess
import sys

from livekit.plugins import convex


def test_import_starts_no_thread_and_warns_of_nothing() -> None:
    """LiveKit preloads plugins in the process that it forks jobs from."""
    code = (
        "import os, livekit.agents; before = len(os.listdir('/proc/self/task'))\n"
        "from livekit.plugins import convex\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.strip() == "0"


def test_every_public_name_is_there_and_nothing_else_is_documented() -> None:
    missing = [name for name in convex.__all__ if not hasattr(convex, name)]

    assert missing == []
    assert not set(convex.__all__) & set(convex.__pdoc__)
