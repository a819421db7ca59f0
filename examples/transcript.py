"""Print what Convex holds of a session: python transcript.py <session key>."""

import asyncio
import sys
from typing import Any

from livekit.plugins import convex


async def main(key: str) -> None:
    token = convex.AgentToken(convex.AgentKey.from_env(), subject=f"guest:{key}")
    async with convex.AsyncConvexClient(token=token) as client:
        session: Any = await client.query("sessions:get", {"sessionKey": key})
        page = {"numItems": 50, "cursor": None}
        asked = {"sessionKey": key, "paginationOpts": page}
        messages: Any = await client.query("sessions:messages", asked)
    for message in messages["page"]:
        print(f"{message['role']}: {message['text']}")
    print(session["status"] if session else "Convex holds no such session")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
