"""Write to the agent in a room of its own: a line to it, a line from it, until the input ends."""

import asyncio
import json
import os
import sys
import uuid

from livekit import api, rtc


async def main() -> None:
    key = f"talk-{uuid.uuid4().hex[:8]}"
    answers: asyncio.Queue[str] = asyncio.Queue()
    reading: set[asyncio.Task[None]] = set()

    async def read(reader: rtc.TextStreamReader) -> None:
        answers.put_nowait(await reader.read_all())

    def on_text(reader: rtc.TextStreamReader, _identity: str) -> None:
        task = asyncio.ensure_future(read(reader))
        reading.add(task)
        task.add_done_callback(reading.discard)

    # The agent is called into the room when the guest joins it, and told which session it is.
    called = api.RoomAgentDispatch(agent_name="host", metadata=json.dumps({"session_key": key}))
    token = (
        api.AccessToken()  # LIVEKIT_API_KEY, LIVEKIT_API_SECRET
        .with_identity("guest")
        .with_grants(api.VideoGrants(room_join=True, room=key))
        .with_room_config(api.RoomConfiguration(agents=[called]))
    )
    room = rtc.Room()
    room.register_text_stream_handler("lk.transcription", on_text)
    await room.connect(os.environ["LIVEKIT_URL"], token.to_jwt())
    print("session", key)
    while True:
        print("<", (await answers.get()).strip(), flush=True)
        if not (line := await asyncio.to_thread(sys.stdin.readline)):
            break
        await room.local_participant.send_text(line.strip(), topic="lk.chat")
    await room.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
