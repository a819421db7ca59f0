"""Starting convex-local: ready, not ready, ended with its owner. The server is a stand-in."""

from __future__ import annotations

import gc
import os
import socket
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import psutil
import pytest

from emma_agent import convex_local
from emma_agent.convex_local import (
    ConvexLocal,
    ConvexLocalError,
    PortInUseError,
    dev_agent_key,
    dev_erasure_key,
    find_node,
)
from livekit.plugins.convex import AgentKey

READY = """
const options = process.argv.slice(2);
console.error("function said: hello");
console.log(JSON.stringify({
  event: "ready", url: "http://127.0.0.1:1234", adminKey: JSON.stringify(options) }));
console.log(JSON.stringify({ event: "reloaded" }));
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
"""
DOES_NOT_COMPILE = """
console.error("convex/schema.ts:3:7: ERROR: Expected ';' but found 'x'");
process.exit(1);
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in for convex-local's program goes."""
    main = tmp_path / "plugins" / "convex-local" / "src" / "main.ts"
    main.parent.mkdir(parents=True)
    main.write_text(READY)
    monkeypatch.setattr(convex_local, "ROOT", tmp_path)
    return main


@pytest.fixture
def program_that_does_not_compile(program: Path) -> None:
    program.write_text(DOES_NOT_COMPILE)


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def test_it_is_ready_when_entered_and_gone_when_left(program: Path) -> None:
    with ConvexLocal.start() as local:
        assert local.url == "http://127.0.0.1:1234"
        assert not has_ended(local.pid)
    assert has_ended(local.pid)
    local.close()


async def test_it_can_be_awaited(program: Path) -> None:
    async with ConvexLocal.start() as local:
        assert local.url == "http://127.0.0.1:1234"
    assert has_ended(local.pid)


def test_the_server_trusts_the_key(program: Path) -> None:
    key = AgentKey.generate(issuer="https://school.example/agent")
    with ConvexLocal.start(agent_key=key, env={"MORE": "a=b"}, faults=True) as local:
        assert local.agent_key is key
        for option in (
            "AGENT_JWT_ISSUER=https://school.example/agent",
            f"AGENT_JWKS={key.jwks_data_uri()}",
            "MORE=a=b",
            "--faults",
            "--exit-with-parent",
        ):
            assert option in local.admin_key


def test_logs_and_events_are_handed_on(program: Path) -> None:
    lines: list[str] = []
    events: list[object] = []
    with ConvexLocal.start(on_log=lines.append, on_event=events.append):
        pass
    assert lines == ["function said: hello"]
    assert events == [{"event": "reloaded"}]


def test_closing_leaves_no_pipe_open(program: Path) -> None:
    gc.collect()  # what earlier tests left behind is not this one's
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        local = ConvexLocal.start()
        local.wait_ready()
        local.close()
        del local
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_the_compilers_message_is_the_error_and_is_said_once(
    program_that_does_not_compile: None,
) -> None:
    lines: list[str] = []
    with pytest.raises(ConvexLocalError, match=r"convex/schema\.ts:3:7: ERROR: Expected ';'"):
        ConvexLocal.start(on_log=lines.append).wait_ready()
    assert lines == []


def test_a_port_that_is_taken_is_an_error_of_its_own() -> None:
    """The real program says it, so that its words and ours cannot part."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port} is in use"):
            ConvexLocal.start(port=port).wait_ready()


async def test_the_compilers_message_is_the_error_when_awaited(
    program_that_does_not_compile: None,
) -> None:
    with pytest.raises(ConvexLocalError, match=r"convex/schema\.ts:3:7: ERROR: Expected ';'"):
        async with ConvexLocal.start():
            pass


def test_a_server_that_hangs_is_ended(program: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    os.mkfifo(said)
    program.write_text(
        'console.error("thinking");'
        f'require("node:fs").writeFileSync({str(said)!r}, "x");'
        "setTimeout(() => {}, 60000);"
    )
    local = ConvexLocal.start()
    assert said.read_text() == "x"
    with pytest.raises(ConvexLocalError, match=r"not ready after 0\.01 s. It said:\nthinking"):
        local.wait_ready(0.01)
    assert has_ended(local.pid)


def test_it_ends_when_its_owner_is_killed(program: Path) -> None:
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from pathlib import Path\n"
            "from emma_agent import convex_local\n"
            f"convex_local.ROOT = Path({str(program.parents[3])!r})\n"
            "local = convex_local.ConvexLocal.start()\n"
            "print(local.url, local.pid, flush=True)\n"
            "time.sleep(60)\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline().split()[1])
    owner.kill()
    owner.wait()
    owner.stdout.close()
    # Not our child: psutil waits for it all the same.
    psutil.Process(pid).wait(10.0)


def test_without_node_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConvexLocalError, match=r"needs Node\.js and none was found\. Run `make"):
        find_node(tmp_path)


def test_an_old_node_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho v20.19.0\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConvexLocalError, match=r"cannot run on Node\.js v20\.19\.0"):
        find_node(tmp_path)


def test_the_development_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    key = dev_agent_key(data_dir)
    assert dev_agent_key(data_dir).pem() == key.pem()
    assert stat.S_IMODE((data_dir / "agent-key.pem").stat().st_mode) == 0o600
    (data_dir / "agent-key.pem").write_text("nothing")
    with pytest.raises(ConvexLocalError, match=r"agent-key\.pem is not a P-256 private key"):
        dev_agent_key(data_dir)


def test_the_erasure_key_of_development_stays(tmp_path: Path) -> None:
    """With another key nobody who was erased is known any more."""
    data_dir = tmp_path / ".emma"
    key = dev_erasure_key(data_dir)
    assert len(key) == 64
    assert dev_erasure_key(data_dir) == key
    assert stat.S_IMODE((data_dir / "erasure-key").stat().st_mode) == 0o600


def test_data_that_have_no_directory_are_one_line(tmp_path: Path) -> None:
    """A file by that name, as `touch .emma` leaves it."""
    data_dir = tmp_path / ".emma"
    data_dir.touch()
    with pytest.raises(ConvexLocalError, match=r"cannot be used \(Not a directory\)") as caught:
        dev_agent_key(data_dir)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConvexLocalError, match=r"cannot be used \(Not a directory\)"):
        dev_erasure_key(data_dir)
