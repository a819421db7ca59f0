"""The client's own behaviour, against real sockets on loopback."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import aiohttp
import jwt
import pytest
from livekit.plugins import convex

from convex import ConvexError
from livekit.plugins.convex.testing import FakeCall, FakeConvex
from livekit.plugins.convex.version import __version__

KEY = convex.AgentKey.generate()


@pytest.fixture
async def fake() -> AsyncIterator[FakeConvex]:
    async with FakeConvex() as fake:
        fake.on("echo:back", lambda args: args)
        yield fake


@pytest.fixture
async def client(fake: FakeConvex) -> AsyncIterator[convex.AsyncConvexClient]:
    async with convex.AsyncConvexClient(fake.url) as client:
        yield client


@contextlib.asynccontextmanager
async def raw_server(answer: bytes | None) -> AsyncIterator[tuple[str, asyncio.Queue[str]]]:
    """A server that says `answer` to whatever comes, or nothing; yields its URL and what it saw."""
    seen: asyncio.Queue[str] = asyncio.Queue()

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            seen.put_nowait("asked")
            if answer is not None:
                writer.write(answer)
            while await reader.read(1024):
                pass
        writer.close()
        seen.put_nowait("closed by the client")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
        await asyncio.gather(*serving)


def http(status: str, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("kind", ["query", "mutation", "action"])
async def test_call_carries_its_arguments_and_brings_back_the_value(
    fake: FakeConvex, client: convex.AsyncConvexClient, kind: str
) -> None:
    value = await getattr(client, kind)("echo:back", {"text": "¿Qué tal?", "seq": 3})

    assert value == {"text": "¿Qué tal?", "seq": 3.0}
    assert [(call.kind, call.function) for call in fake.calls] == [(kind, "echo:back")]


async def test_call_without_arguments_sends_an_empty_object(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    assert await client.query("echo:back") == {}


async def test_client_names_itself_in_the_form_the_backend_parses(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    await client.query("echo:back")

    assert fake.calls[0].client == f"livekit-plugins-convex-{__version__}"


async def test_thrown_convex_error_arrives_with_its_data(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    def throw(args: object) -> None:
        raise ConvexError("", {"code": "gap", "expected": 3})

    fake.on("sessions:record", throw)

    with pytest.raises(convex.FunctionError) as caught:
        await client.mutation("sessions:record")

    assert (caught.value.function, caught.value.code) == ("sessions:record", "gap")
    assert caught.value.data == {"code": "gap", "expected": 3.0}


async def test_crash_in_a_function_is_opaque(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    fake.on("a:b", lambda args: 1 / 0)

    with pytest.raises(convex.FunctionError) as caught:
        await client.mutation("a:b")

    assert (caught.value.code, caught.value.data, caught.value.retryable) == (None, None, False)


@pytest.mark.parametrize("status", [408, 421, 425, 429, 503])
async def test_busy_deployment_may_be_asked_again_when_it_says(
    fake: FakeConvex, client: convex.AsyncConvexClient, status: int
) -> None:
    fake.fail_next(status, retry_after_s=7)

    with pytest.raises(convex.BusyError) as caught:
        await client.mutation("echo:back")

    assert (caught.value.status, caught.value.retry_after_s) == (status, 7.0)
    assert caught.value.retryable


@pytest.mark.parametrize(("status", "retryable"), [(500, True), (502, True), (560, True)])
async def test_server_fault_may_be_asked_again(
    fake: FakeConvex, client: convex.AsyncConvexClient, status: int, retryable: bool
) -> None:
    fake.fail_next(status)

    with pytest.raises(convex.TransportError) as caught:
        await client.mutation("echo:back")

    assert (caught.value.status, caught.value.retryable) == (status, retryable)


async def test_client_fault_is_not_worth_repeating(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    fake.fail_next(400, code="BadJsonBody")

    with pytest.raises(convex.TransportError, match="HTTP 400 BadJsonBody") as caught:
        await client.mutation("echo:back")

    assert not caught.value.retryable


async def test_nobody_there_is_retryable_and_names_the_variable(
    client: convex.AsyncConvexClient, fake: FakeConvex
) -> None:
    await fake.stop()

    with pytest.raises(convex.TransportError, match=rf"{fake.url} \(CONVEX_URL\)") as caught:
        await client.query("echo:back")

    assert caught.value.retryable
    assert caught.value.status is None


async def test_lost_reply_of_a_mutation_is_not_sent_again_by_itself(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    fake.drop_next_reply()

    with pytest.raises(convex.TransportError) as caught:
        await client.mutation("echo:back")

    assert caught.value.retryable
    assert fake.call_count() == 1


async def test_lost_reply_of_a_query_is_asked_for_once_more(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    fake.drop_next_reply()

    assert await client.query("echo:back", {"x": True}) == {"x": True}
    assert fake.call_count() == 2


async def test_deadline_covers_a_server_that_never_answers() -> None:
    async with raw_server(None) as (url, seen), convex.AsyncConvexClient(url) as client:
        with pytest.raises(convex.RequestTimeoutError, match="it may have run") as caught:
            await client.mutation("a:b", timeout_s=0.05)

        assert caught.value.retryable
        assert [await seen.get(), await seen.get()] == ["asked", "closed by the client"]


async def test_deadline_covers_connecting() -> None:
    """A full accept queue: the kernel answers no SYN, as a firewall that drops packets."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with convex.AsyncConvexClient(url, timeout_s=0.05) as client:
            with pytest.raises(convex.RequestTimeoutError, match=r"within 0\.05 s"):
                await client.query("a:b")


async def test_deadline_covers_an_answer_that_trickles() -> None:
    beginning = b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"status":'
    async with raw_server(beginning) as (url, _), convex.AsyncConvexClient(url) as client:
        with pytest.raises(convex.RequestTimeoutError):
            await client.query("a:b", timeout_s=0.05)


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan")])
async def test_deadline_must_be_a_time_to_come(
    client: convex.AsyncConvexClient, timeout_s: float
) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        await client.query("echo:back", timeout_s=timeout_s)


async def test_callers_own_timeout_stays_the_callers() -> None:
    async with raw_server(None) as (url, _), convex.AsyncConvexClient(url) as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await client.query("a:b")

        assert not isinstance(caught.value, convex.ConvexClientError)


async def test_cancelling_a_call_closes_its_connection() -> None:
    async with raw_server(None) as (url, seen), convex.AsyncConvexClient(url) as client:
        call = asyncio.create_task(client.mutation("a:b", timeout_s=60))
        assert await seen.get() == "asked"
        call.cancel()

        with pytest.raises(asyncio.CancelledError):
            await call
        assert await seen.get() == "closed by the client"


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("", "is not set"),
        ("happy-animal-123.convex.cloud", "not an absolute"),
        ("/api", "not an absolute"),
        ("localhost:3210", "not an absolute"),
        ("http://", "not an absolute"),
        ("http://host:port", "not an absolute"),
        ("ws://127.0.0.1:3210", "http://"),
        ("wss://happy.convex.cloud", "https://"),
        ("https://happy.convex.cloud/api", "write only https://happy.convex.cloud"),
        ("https://happy.convex.cloud?x=1", "write only https://happy.convex.cloud"),
        ("https://happy.convex.site", "convex.cloud"),
        ("https://user:secret@happy.convex.cloud", "password"),
    ],
)
def test_address_that_cannot_be_a_deployments_is_refused_with_the_remedy(
    url: str, remedy: str
) -> None:
    with pytest.raises(convex.ConfigurationError) as caught:
        convex.AsyncConvexClient(url)

    assert str(caught.value).startswith("CONVEX_URL")
    assert remedy in str(caught.value)
    assert "secret" not in str(caught.value)


def test_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVEX_URL", " https://happy.convex.cloud/ ")

    assert convex.AsyncConvexClient().url == "https://happy.convex.cloud"


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", "<html>Welcome</html>", "Content-Type: text/html"),
        http("200 OK", '{"hello":"world"}', "Content-Type: application/json"),
        http("200 OK", '{"status":"success","value":{"$integer":"?"}}'),
        http("200 OK", "[" * 100_000),
        http("204 No Content", ""),
        http("404 Not Found", "<html>no such page</html>"),
        http("404 Not Found", '{"code":"DeploymentNotFound","message":"no"}'),
        http("401 Unauthorized", "<html>log in first</html>"),
    ],
)
async def test_answer_that_is_not_convexs_names_the_variable_and_the_remedy(answer: bytes) -> None:
    async with raw_server(answer) as (url, _), convex.AsyncConvexClient(url) as client:
        with pytest.raises(convex.TransportError) as caught:
            await client.query("a:b")

    assert "CONVEX_URL must be the deployment's own address" in str(caught.value)
    assert not caught.value.retryable


async def test_redirect_is_not_followed(fake: FakeConvex) -> None:
    """The token would go to whoever the redirect names."""
    moved = http("307 Temporary Redirect", "", f"Location: {fake.url}/api/query")
    token = convex.AgentToken(KEY, subject="s")
    async with raw_server(moved) as (url, _), convex.AsyncConvexClient(url, token=token) as client:
        with pytest.raises(convex.TransportError, match="CONVEX_URL must be"):
            await client.query("echo:back")

    assert fake.call_count() == 0


async def test_refused_token_is_renewed_once_and_the_call_goes_through() -> None:
    tokens: list[str | None] = []

    def accepts(token: str | None) -> bool:
        tokens.append(token)
        return len(tokens) > 1

    async with FakeConvex(accepts=accepts) as fake:
        fake.on("echo:back", lambda args: args)
        token = convex.AgentToken(KEY, subject="s")
        async with convex.AsyncConvexClient(fake.url, token=token) as client:
            assert await client.mutation("echo:back") == {}

    assert len(set(tokens)) == 2


@pytest.mark.parametrize(("token", "calls"), [(convex.AgentToken(KEY, subject="s"), 2), ("x", 1)])
async def test_token_refused_again_is_an_authentication_error(
    token: convex.AgentToken | str, calls: int
) -> None:
    """A finished JWT cannot be renewed, so it is not tried twice."""
    async with FakeConvex(accepts=lambda token: False) as fake:
        async with convex.AsyncConvexClient(fake.url, token=token) as client:
            with pytest.raises(convex.AuthenticationError, match="CONVEX_AGENT_KEY"):
                await client.query("echo:back")

        assert fake.call_count() == calls


async def test_worker_whose_clock_is_wrong_signs_by_the_servers() -> None:
    """The first call is refused, its Date header tells the time, the second one is right."""
    off_by_s = 3600.0

    def accepts(token: str | None) -> bool:
        issued_at: float = jwt.decode(token or "", options={"verify_signature": False})["iat"]
        return abs(issued_at - time.time()) < 5

    async with FakeConvex(accepts=accepts) as fake:
        fake.on("echo:back", lambda args: args)
        token = convex.AgentToken(KEY, subject="s", clock=lambda: time.time() - off_by_s)
        async with convex.AsyncConvexClient(fake.url, token=token) as client:
            await client.query("echo:back")
            await client.query("echo:back")

        assert fake.call_count() == 3


@pytest.mark.parametrize(("variable", "signed"), [(KEY.pem(), True), ("", False), (" ", False)])
async def test_without_a_token_the_environments_key_signs(
    fake: FakeConvex, monkeypatch: pytest.MonkeyPatch, variable: str, signed: bool
) -> None:
    monkeypatch.setenv("CONVEX_AGENT_KEY", variable)
    async with convex.AsyncConvexClient(fake.url) as client:
        await client.query("echo:back")

    assert isinstance(client.token, convex.AgentToken) is signed
    assert (fake.calls[0].token is not None) is signed


async def test_token_none_is_nobody_whatever_the_environment_says(
    fake: FakeConvex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVEX_AGENT_KEY", KEY.pem())
    async with convex.AsyncConvexClient(fake.url, token=None) as client:
        await client.query("echo:back")

    assert fake.calls[0].token is None


async def test_accepted_answer_teaches_the_clock_too() -> None:
    """Seconds off, a token may still be accepted; the next one shall be right."""
    async with FakeConvex() as fake:
        fake.on("echo:back", lambda args: args)
        token = convex.AgentToken(KEY, subject="s", clock=lambda: time.time() - 60)
        async with convex.AsyncConvexClient(fake.url, token=token) as client:
            await client.query("echo:back")
        issued_at = jwt.decode(token.value(), options={"verify_signature": False})["iat"]

    assert abs(issued_at - time.time()) < 5


async def test_closing_one_sibling_leaves_the_others_call_alone(fake: FakeConvex) -> None:
    fake.delay_next(0.05)
    first = convex.AsyncConvexClient(fake.url)
    async with first.with_token(None) as second:
        call = asyncio.create_task(second.mutation("echo:back"))
        await fake.called()
        await first.aclose()

        assert await call == {}


async def test_sibling_has_its_own_identity_and_outlives_the_first(fake: FakeConvex) -> None:
    def subject(call: FakeCall) -> object:
        return jwt.decode(call.token or "", options={"verify_signature": False})["sub"]

    first = convex.AsyncConvexClient(fake.url, token=convex.AgentToken(KEY, subject="student:a"))
    second = first.with_token(convex.AgentToken(KEY, subject="student:b"))
    try:
        await first.query("echo:back")
        await first.aclose()
        await second.query("echo:back")
    finally:
        await second.aclose()

    assert [subject(call) for call in fake.calls] == ["student:a", "student:b"]


async def test_closing_twice_is_fine_and_a_closed_client_says_so(fake: FakeConvex) -> None:
    client = convex.AsyncConvexClient(fake.url)
    await client.query("echo:back")
    await client.aclose()
    await client.aclose()

    with pytest.raises(RuntimeError, match="closed"):
        await client.query("echo:back")


async def test_given_session_is_used_and_left_open(fake: FakeConvex) -> None:
    async with aiohttp.ClientSession() as session:
        async with convex.AsyncConvexClient(fake.url, http_session=session) as client:
            await client.query("echo:back")

        assert not session.closed
    assert fake.calls[0].client == f"livekit-plugins-convex-{__version__}"


async def test_use_in_another_loop_is_refused_in_plain_words(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    await client.query("echo:back")

    with pytest.raises(RuntimeError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, client.query("echo:back"))


FORKED = """
import asyncio, os
from livekit.plugins import convex
from livekit.plugins.convex.testing import FakeCall, FakeConvex

async def main():
    async with FakeConvex() as fake:
        fake.on("echo:back", lambda args: args)
        client = convex.AsyncConvexClient(fake.url)
        await client.query("echo:back")
        if os.fork() == 0:
            try:
                await client.query("echo:back")
            except RuntimeError as error:
                os.write(1, str(error).encode())
            os._exit(0)
        os.wait()
        await client.aclose()

asyncio.run(main())
"""


def test_use_after_a_fork_is_refused_in_plain_words() -> None:
    """Both processes' bytes would mix on one socket."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=True
    )

    assert "make the client in the process that uses it" in done.stdout
