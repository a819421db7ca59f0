"""A process that begins one run after the other and ends none; run by test_lost_run.py."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from livekit.plugins.convex import MessageRecord, Outbox
from livekit.plugins.convex.journal import FORMAT, Header
from livekit.plugins.convex.limits import RECORD_VERSION


def main(url: str, directory: str, runs: str) -> None:
    held = []
    for n in range(int(runs)):
        run_id = f"run_{n}"
        header = Header(
            format=FORMAT,
            record_version=RECORD_VERSION,
            run_id=run_id,
            session_key=run_id,
            subject=f"guest:{run_id}",
            deployment=url,
            started_at_ms=time.time() * 1000,
            steady_at_ms=time.monotonic() * 1000,
        )
        outbox = Outbox.open(Path(directory), header)
        held.append(outbox)
        said = MessageRecord(
            created_at=time.time(), item_id="item", role="user", text="Hello", interrupted=False
        )
        outbox.append(said)
        os.write(1, f"{run_id}\n".encode())
        time.sleep(0.002)
    os.write(1, b"all\n")
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
