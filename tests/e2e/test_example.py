"""The page of examples/ followed to the letter: prepare, a Convex, the agent, a conversation."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from emma_agent.convex_local import ROOT
from emma_agent.demo.children import Child
from emma_agent.demo.livekit_server import LiveKitServer
from emma_agent.demo.plan import clean_environment
from tests.support.written_models import GREETING, WrittenModels, answer_to

EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "README.md").read_text()
CONSOLE = "\n".join(re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def commands() -> Iterator[str]:
    """What the page types; a quotation that is open goes on in the next line."""
    typed = ""
    for line in CONSOLE.splitlines():
        if not typed and not line.startswith("$ "):
            continue
        typed = f"{typed}\n{line}" if typed else line.removeprefix("$ ")
        with contextlib.suppress(ValueError):
            shlex.split(typed)
            yield typed
            typed = ""


COMMANDS = list(commands())


def command(beginning: str) -> str:
    """The page's one command that begins so."""
    [found] = [one for one in COMMANDS if one.startswith(beginning)]
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the page's commands see, with nothing in it but what is committed."""
    ignored = shutil.ignore_patterns(*(EXAMPLES / ".gitignore").read_text().split(), "sessions.ts")
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=ignored)
    for name in ("plugins", "node_modules"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@asynccontextmanager
async def running(
    name: str,
    words: list[str],
    *,
    directory: Path,
    env: dict[str, str],
    until: Callable[[str], bool],
) -> AsyncIterator[Child]:
    """A process of the page, from when its log says so to the end of the block."""
    log = directory / f"{name}.log"
    # A child begins where this process stands.
    there = ["bash", "-c", 'cd "$0" && exec "$@"', str(directory), *words]
    child = Child(name, there, env=env, log=log)
    try:
        await child.wait_for(lambda: until(log.read_text()), timeout_s=90)
        yield child
    finally:
        await child.stop(grace_s=10.0)


async def finished(words: list[str], directory: Path, env: dict[str, str]) -> str:
    """What a command of the page says."""
    done = await asyncio.to_thread(
        subprocess.run,
        words,
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def until_it_answers(url: str) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession() as http:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url) as reply:
                    if reply.status == 200:
                        return
            await asyncio.sleep(0.05)


async def test_the_example_runs_as_its_page_says(checkout: Path) -> None:
    examples = checkout / "examples"
    server = LiveKitServer.choose(ROOT)
    env = clean_environment()
    for step in ("python -m livekit.plugins.convex", 'python -c "'):
        await finished(["bash", "-c", command(step)], examples, env)
    convex = [*shlex.split(command("node ")), "--port", "0", "--db", ":memory:", "--json"]

    async with (
        WrittenModels() as models,
        running(
            "convex", convex, directory=examples, env=env, until=lambda log: '"ready"' in log
        ) as local,
        running(
            "livekit",
            server.command,
            directory=examples,
            env={**env, **server.env},
            until=bool,
        ),
    ):
        [ready] = [json.loads(line) for line in local.log.read_text().splitlines() if "{" in line]
        exported = dict(
            word.split("=", 1)
            for line in COMMANDS
            if line.startswith("export ")
            for word in shlex.split(line)[1:]
        )
        mine = {
            "LIVEKIT_URL": server.url,
            "LIVEKIT_API_KEY": server.api_key,
            "LIVEKIT_API_SECRET": server.api_secret,
            "CONVEX_URL": ready["url"],
        }
        assert exported.keys() - mine.keys() == {"CONVEX_AGENT_KEY"}
        env |= exported | mine | {"CONVEX_OUTBOX_DIR": str(checkout / "outbox")}
        variable, *agent = shlex.split(command("OPENAI_API_KEY"))
        env |= {variable.split("=")[0]: "none", "OPENAI_BASE_URL": models.url}
        await until_it_answers(server.health_url)

        async with running(
            "agent",
            agent,
            directory=examples,
            env=env,
            until=lambda log: "registered worker" in log,
        ):
            talk = await asyncio.create_subprocess_exec(
                *shlex.split(command("python talk.py")),
                cwd=examples,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert talk.stdin is not None
            assert talk.stdout is not None
            async with asyncio.timeout(90):
                key = (await talk.stdout.readline()).decode().removeprefix("session ").strip()
                assert await talk.stdout.readline() == f"< {GREETING}\n".encode()
                talk.stdin.write(b"Good morning\n")
                assert await talk.stdout.readline() == f"< {answer_to(1)}\n".encode()
                talk.stdin.close()
                # What it has shown counts; rtc's native library may still abort at its exit.
                await talk.wait()
            reader = [*shlex.split(command("python transcript.py"))[:-1], key]
            shown = ""
            async with asyncio.timeout(30):
                while not shown.endswith("\nended\n"):
                    shown = await finished(reader, examples, env)

    assert shown.splitlines() == [
        f"assistant: {GREETING}",
        "user: Good morning",
        f"assistant: {answer_to(1)}",
        "ended",
    ]
    assert list((checkout / "outbox").iterdir()) == []
