"""Print the Convex functions that `SessionRecorder` needs.

python -m livekit.plugins.convex > convex/sessions.ts
"""

from __future__ import annotations

import sys
from importlib.resources import files

if __name__ == "__main__":
    text = files("livekit.plugins.convex") / "functions" / "sessions.ts"
    sys.stdout.buffer.write(text.read_bytes())
