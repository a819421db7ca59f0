"""OpenAI Realtime on this machine: the same ear, script and voice behind one WebSocket.

    python -m emma_agent.demo.realtime --port 0

prints `{"event": "ready", "url": "http://127.0.0.1:PORT/v1"}` once it answers. With
`EMMA_SPEECH=realtime` and `EMMA_REALTIME_BASE_URL` set to that URL the tutor runs unchanged. It
speaks the part of the protocol that LiveKit's plugin does: it tells where speech begins and ends,
and answers when it is asked to (`response.create`), never by itself.

`--late-transcripts S` sends what the student said S seconds late, which OpenAI may do too.
Nothing that is said is logged.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import sys
import uuid
import wave
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from aiohttp import WSMsgType, web

from emma_agent.demo import script
from emma_agent.demo.speech import EMMA_VOICE, Hearing, missing_packages
from emma_agent.demo.voice import SAMPLE_RATE, Voice

__all__ = ["Conversation", "Segmenter", "main"]

_FRAME_BYTES: Final = 2 * SAMPLE_RATE // 50
# Root mean square of a 20 ms frame, full scale 32768. Silence in the room is below 10.
_LOUD: Final = 200.0
# Sound before speech is sure to have begun, and what makes it sure.
_PREFIX_FRAMES: Final = 15
_ONSET_FRAMES: Final = 3
_DELTA_BYTES: Final = SAMPLE_RATE  # half a second


class Segmenter:
    """Where speech begins and ends, by loudness."""

    def __init__(self) -> None:
        self.silence_ms = 500
        self._rest = b""
        self.clear()

    def clear(self) -> None:
        """Forget what was heard."""
        self._heard: list[bytes] = []
        self._loud = 0
        self._quiet = 0
        self.speaking = False

    def feed(self, audio: bytes) -> list[bytes | None]:
        """Take samples; for each beginning of speech there is None, for each end what was said."""
        events: list[bytes | None] = []
        data = self._rest + audio
        whole = len(data) - len(data) % _FRAME_BYTES
        self._rest = data[whole:]
        for start in range(0, whole, _FRAME_BYTES):
            self._frame(data[start : start + _FRAME_BYTES])
            if not self.speaking:
                del self._heard[:-_PREFIX_FRAMES]
                if self._loud >= _ONSET_FRAMES:
                    self.speaking = True
                    events.append(None)
            elif 20 * self._quiet >= self.silence_ms:
                events.append(self.take())
        return events

    def take(self) -> bytes:
        """The samples of what was said last; the buffer is empty then."""
        heard = b"".join(self._heard)
        self.clear()
        return heard

    def _frame(self, frame: bytes) -> None:
        samples = np.frombuffer(frame, dtype=np.int16).astype(np.float64)
        loud = float(np.sqrt(np.mean(np.square(samples)))) > _LOUD
        self._heard.append(frame)
        self._loud = self._loud + 1 if loud else 0
        self._quiet = 0 if loud else self._quiet + 1


@dataclass(slots=True)
class _Item:
    """One item of the conversation; what the student said is known a little later."""

    wire: dict[str, Any]
    text: asyncio.Future[str] | None = None


@dataclass(slots=True)
class Conversation:
    """One connection of the tutor's."""

    send: Callable[[dict[str, Any]], Coroutine[Any, Any, None]]
    transcribe: Callable[[bytes], Coroutine[Any, Any, str]]
    voice: Voice
    late_s: float
    items: list[_Item] = field(default_factory=list)
    ear: Segmenter = field(default_factory=Segmenter)
    instructions: str = ""
    tools: list[str] = field(default_factory=list)
    speed: float = 1.0
    speech_id: str = ""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    answering: asyncio.Task[None] | None = None

    async def receive(self, event: Mapping[str, Any]) -> None:
        """Take one event of the client's; others than these are ignored."""
        match event.get("type"):
            case "session.update":
                self._configure(event.get("session") or {})
                await self.send({"type": "session.updated", "session": event.get("session")})
            case "input_audio_buffer.append":
                await self._hear(base64.b64decode(event["audio"]))
            case "input_audio_buffer.commit":
                await self._commit_or_refuse()
            case "input_audio_buffer.clear":
                self.ear.clear()
                await self.send({"type": "input_audio_buffer.cleared"})
            case "conversation.item.create":
                await self._add(_Item(dict(event["item"])), event.get("previous_item_id"))
            case "conversation.item.delete":
                self.items = [i for i in self.items if i.wire["id"] != event["item_id"]]
                await self.send({"type": "conversation.item.deleted", "item_id": event["item_id"]})
            case "response.create":
                self.answering = self._own(self._answer(event.get("response") or {}))
            case "response.cancel":
                if self.answering is not None:
                    self.answering.cancel()
            case _:
                pass

    async def aclose(self) -> None:
        """End what is under way."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _configure(self, session: Mapping[str, Any]) -> None:
        self.instructions = session.get("instructions") or self.instructions
        if (tools := session.get("tools")) is not None:
            self.tools = [str(tool["name"]) for tool in tools]
        audio = session.get("audio") or {}
        detection = (audio.get("input") or {}).get("turn_detection") or {}
        self.ear.silence_ms = detection.get("silence_duration_ms") or self.ear.silence_ms
        self.speed = (audio.get("output") or {}).get("speed") or self.speed

    async def _hear(self, audio: bytes) -> None:
        for said in self.ear.feed(audio):
            if said is None:
                self.speech_id = _new_id("item")
                await self._send_about_speech("speech_started")
            else:
                await self._commit(said)

    async def _commit_or_refuse(self) -> None:
        if self.ear.speaking:
            await self._commit(self.ear.take())
            return
        error = {
            "type": "invalid_request_error",
            "code": "input_audio_buffer_commit_empty",
            "message": "The input audio buffer holds no speech.",
        }
        await self.send({"type": "error", "error": error})

    async def _commit(self, audio: bytes) -> None:
        await self._send_about_speech("speech_stopped")
        await self._send_about_speech("committed")
        item = _Item(
            {
                "id": self.speech_id,
                "type": "message",
                "role": "user",
                "status": "completed",
                "content": [{"type": "input_audio", "transcript": None}],
            },
            text=asyncio.get_running_loop().create_future(),
        )
        await self._add(item)
        self._own(self._write_down(item, audio))

    async def _send_about_speech(self, what: str) -> None:
        await self.send({"type": f"input_audio_buffer.{what}", "item_id": self.speech_id})

    async def _write_down(self, item: _Item, audio: bytes) -> None:
        text = await self.transcribe(_wav(audio))
        assert item.text is not None
        item.text.set_result(text)
        await asyncio.sleep(self.late_s)
        await self.send(
            {
                "type": "conversation.item.input_audio_transcription.completed",
                "item_id": item.wire["id"],
                "content_index": 0,
                "transcript": text,
            }
        )

    async def _add(self, item: _Item, after: str | None = None) -> None:
        """Put an item behind `after`, by default behind the last, and say so."""
        at = len(self.items)
        if after == "root":
            at = 0
        elif after is not None:
            ids = [each.wire["id"] for each in self.items]
            at = ids.index(after) + 1 if after in ids else at
        self.items.insert(at, item)
        before = self.items[at - 1].wire["id"] if at else None
        await self.send(
            {"type": "conversation.item.added", "previous_item_id": before, "item": item.wire}
        )

    async def _answer(self, wanted: Mapping[str, Any]) -> None:
        response_id = _new_id("resp")
        response = {"id": response_id, "metadata": wanted.get("metadata")}
        await self.send(
            {"type": "response.created", "response": {**response, "status": "in_progress"}}
        )
        try:
            reply = script.reply_to(
                await self._messages(wanted.get("instructions")), tools=self.tools
            )
            if isinstance(reply, script.Say):
                await self._say(reply.text, response_id)
            else:
                await self._call(reply, response_id)
            status = "completed"
        except asyncio.CancelledError:
            status = "cancelled"
        await self.send(
            {"type": "response.done", "response": {**response, "status": status, "output": []}}
        )

    async def _messages(self, instructions: str | None) -> list[dict[str, Any]]:
        """The conversation as a language model of text is asked."""
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.instructions}]
        for item in list(self.items):
            match item.wire["type"]:
                case "function_call":
                    messages.append(_asked_for(item.wire))
                case "function_call_output":
                    messages.append(
                        {
                            "role": "tool",
                            "tool_call_id": item.wire.get("call_id"),
                            "content": item.wire["output"],
                        }
                    )
                case "message":
                    text = await item.text if item.text is not None else _text_of(item.wire)
                    messages.append({"role": item.wire["role"], "content": text})
                case _:
                    pass
        if instructions:
            messages.append({"role": "system", "content": instructions})
        return messages

    async def _say(self, text: str, response_id: str) -> None:
        item: dict[str, Any] = {
            "id": _new_id("item"),
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        about = {"response_id": response_id, "item_id": item["id"], "content_index": 0}
        await self._begin(item, response_id)
        part = {"type": "audio", "transcript": ""}
        await self.send({"type": "response.content_part.added", **about, "part": part})
        await self.send({"type": "response.output_audio_transcript.delta", **about, "delta": text})
        audio = (await asyncio.to_thread(self.voice.say, text, speed=self.speed)).tobytes()
        for start in range(0, len(audio), _DELTA_BYTES):
            delta = base64.b64encode(audio[start : start + _DELTA_BYTES]).decode()
            await self.send({"type": "response.output_audio.delta", **about, "delta": delta})
        await self.send({"type": "response.output_audio.done", **about})
        item |= {"status": "completed", "content": [{"type": "output_audio", "transcript": text}]}
        await self._finish(item, response_id)

    async def _call(self, tool: script.CallTool, response_id: str) -> None:
        item = {
            "id": _new_id("item"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": _new_id("call"),
            "name": tool.name,
            "arguments": "",
        }
        await self._begin(item, response_id)
        item |= {"status": "completed", "arguments": tool.arguments}
        await self._finish(item, response_id)

    async def _begin(self, item: dict[str, Any], response_id: str) -> None:
        await self.send(
            {
                "type": "response.output_item.added",
                "response_id": response_id,
                "output_index": 0,
                "item": item,
            }
        )
        await self._add(_Item(item))

    async def _finish(self, item: dict[str, Any], response_id: str) -> None:
        await self.send(
            {
                "type": "response.output_item.done",
                "response_id": response_id,
                "output_index": 0,
                "item": item,
            }
        )

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


def _asked_for(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call, as chat completions carry it."""
    function = {"name": call.get("name"), "arguments": call.get("arguments")}
    return {
        "role": "assistant",
        "tool_calls": [{"id": call.get("call_id"), "type": "function", "function": function}],
    }


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:16]}"


def _text_of(item: Mapping[str, Any]) -> str:
    parts = [part.get("text") or part.get("transcript") for part in item.get("content") or ()]
    return " ".join(part for part in parts if part)


def _wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE)
        wav.writeframes(samples)
    return file.getvalue()


def _build_app(late_s: float) -> web.Application:
    """Load the models and build the application."""
    hearing, voice = Hearing(), Voice(EMMA_VOICE)
    # One recording at a time: two at once on two cores would both be late.
    ears = ThreadPoolExecutor(1, thread_name_prefix="whisper")

    async def transcribe(audio: bytes) -> str:
        return await asyncio.get_running_loop().run_in_executor(ears, hearing.transcribe, audio)

    async def realtime(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)

        async def send(event: dict[str, Any]) -> None:
            if not socket.closed:
                await socket.send_json({"event_id": _new_id("event"), **event})

        conversation = Conversation(send, transcribe, voice, late_s)
        await send({"type": "session.created", "session": {"type": "realtime"}})
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    await conversation.receive(json.loads(message.data))
        finally:
            await conversation.aclose()
        return socket

    app = web.Application()
    app.router.add_get("/v1/realtime", realtime)
    return app


async def _serve(port: int, late_s: float, *, exit_with_parent: bool) -> int:
    runner = web.AppRunner(_build_app(late_s), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    try:
        await site.start()
    except OSError as error:
        sys.stderr.write(f"Port {port} cannot be used: {error.strerror}.\n")
        return 1
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    sys.stdout.write(json.dumps({"event": "ready", "url": url}) + "\n")
    sys.stdout.flush()
    try:
        if exit_with_parent:
            await asyncio.to_thread(_read_to_the_end)
        else:
            await asyncio.Event().wait()
    finally:
        await runner.cleanup()
    return 0


def _read_to_the_end() -> None:
    while sys.stdin.buffer.read(4096):
        pass


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal comes, or until stdin closes with `--exit-with-parent`."""
    parser = argparse.ArgumentParser(prog="python -m emma_agent.demo.realtime", description=__doc__)
    parser.add_argument("--port", type=int, default=8902, help="0 takes a free one")
    parser.add_argument("--late-transcripts", type=float, default=0.0, help="seconds")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when stdin closes")
    options = parser.parse_args(argv)
    if missing := missing_packages():
        sys.stderr.write(
            f"The offline speech needs {', '.join(missing)}, not installed here: "
            "run `make setup`, or pip install 'emma-agent[demo]'.\n"
        )
        return 1
    try:
        return asyncio.run(
            _serve(
                options.port, options.late_transcripts, exit_with_parent=options.exit_with_parent
            )
        )
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
