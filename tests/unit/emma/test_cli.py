"""The command line: what it refuses and how, what it hands on, what it prints."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from emma_agent import cli, convex_local, outbox_commands
from emma_agent.convex_local import PortInUseError
from emma_agent.settings import get_settings
from livekit.plugins.convex import AgentKey, ConfigurationError

LIVEKIT = {
    "LIVEKIT_URL": "ws://127.0.0.1:7880",
    "LIVEKIT_API_KEY": "devkey",
    "LIVEKIT_API_SECRET": "livekit-secret",
    "OPENAI_API_KEY": "openai-secret",
}
# Nobody listens there.
CONVEX = {"CONVEX_URL": "http://127.0.0.1:9", "CONVEX_AGENT_KEY": AgentKey.generate().pem()}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("LIVEKIT_", "OPENAI_", "CONVEX_", "NEXT_PUBLIC_", "EMMA_")):
            monkeypatch.delenv(name)
    # Commands set variables for LiveKit's processes; monkeypatch puts all of them back.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    # Where the outbox lies by default.
    monkeypatch.setitem(os.environ, "XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def fresh_settings() -> None:
    get_settings.cache_clear()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, **env: str) -> int:
    """The exit code of `python -m emma_agent <arguments>`."""
    for name, value in env.items():
        monkeypatch.setitem(os.environ, name, value)
    monkeypatch.setattr(sys, "argv", ["emma_agent", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def handed_to_livekit(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What LiveKit's own command line gets instead of running it."""
    seen: list[list[str]] = []
    monkeypatch.setattr("livekit.agents.cli.run_app", lambda server: seen.append(sys.argv[1:]))
    return seen


def no_convex_local(*args: object, **kwargs: object) -> NoReturn:
    raise AssertionError("convex-local must not be started")


def test_help_names_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    told = set(re.findall(r"^│ ([a-z][a-z-]*)  ", shown, re.MULTILINE))
    worker = {"dev", "start", "console", "connect", "demo"}
    school = {"import-lessons", "seed", "erase", "export"}
    assert told == {*worker, *school, "keys", "doctor", "outbox"}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("import-lessons", ["FILE", "lessons/README.md", "all or nothing"]),
        ("seed", ["demo's student and lesson"]),
        ("erase", ["STUDENT_ID", "--yes", "receipt"]),
        ("export", ["STUDENT_ID", "--format", "jsonl|csv|xapi", "--output"]),
    ],
)
def test_a_command_of_the_school_says_what_it_takes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    words: list[str],
) -> None:
    assert run(monkeypatch, command, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert [word for word in (*words, "CONVEX_ADMIN_KEY") if word not in shown] == []


def test_start_without_a_deployment_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "start", **LIVEKIT) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("CONVEX_URL is not set: ")
    assert second.startswith("CONVEX_AGENT_KEY is not set: ")


def test_dev_without_livekit_says_how_to_run_one_before_it_starts_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(convex_local.ConvexLocal, "start", no_convex_local)
    assert run(monkeypatch, "dev", OPENAI_API_KEY="x") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == list(LIVEKIT)[:3]
    assert "livekit-server --dev" in lines[0]


def test_a_wrong_value_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "start", EMMA_TURN_DETECTION="cloud", **LIVEKIT, **CONVEX) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("EMMA_TURN_DETECTION is not known: ")


@pytest.mark.parametrize("command", ["start", "dev"])
def test_an_outbox_that_cannot_be_used_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    seen = handed_to_livekit(monkeypatch)
    assert run(monkeypatch, command, EMMA_OUTBOX_DIR="/proc/x", **LIVEKIT, **CONVEX) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("EMMA_OUTBOX_DIR cannot be used (/proc/x: ")
    assert seen == []


@pytest.mark.parametrize("command", [["start"], ["outbox", "drain"]])
def test_an_address_that_the_client_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    handed_to_livekit(monkeypatch)
    wrong = {**CONVEX, "CONVEX_URL": "http://a:99999"}
    assert run(monkeypatch, *command, **LIVEKIT, **wrong) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("CONVEX_URL (http://a:99999) is not an absolute http(s) address")


def test_what_the_plugin_finds_unusable_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*args: object, **how: object) -> NoReturn:
        raise ConfigurationError("CONVEX_URL is of no use")

    monkeypatch.setattr(outbox_commands, "drain_outbox", refuse)
    variables = {**CONVEX, "EMMA_OUTBOX_DIR": str(tmp_path)}
    assert run(monkeypatch, "outbox", "drain", **variables) == 2
    assert capsys.readouterr().err.splitlines() == ["CONVEX_URL is of no use"]


@pytest.mark.parametrize(
    ("arguments", "handed_on"),
    [
        (["start", "--drain-timeout", "60"], ["start", "--drain-timeout", "60"]),
        (["dev", "--log-level", "debug"], ["dev", "--no-reload", "--log-level", "debug"]),
        (
            ["connect", "--room", "r1", "--participant-identity", "emma"],
            ["connect", "--room", "r1", "--participant-identity", "emma"],
        ),
    ],
)
def test_livekits_own_options_are_handed_on(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], handed_on: list[str]
) -> None:
    seen = handed_to_livekit(monkeypatch)
    assert run(monkeypatch, *arguments, **LIVEKIT, **CONVEX) == 0
    assert seen == [handed_on]


def test_livekits_address_may_be_given_as_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = handed_to_livekit(monkeypatch)
    options = ["--url", "ws://host:7880", "--api-key", "k", "--api-secret", "s"]
    assert run(monkeypatch, "start", *options, OPENAI_API_KEY="x", **CONVEX) == 0
    assert seen == [["start"]]
    assert os.environ["LIVEKIT_URL"] == "ws://host:7880"


def test_console_without_portaudio_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert run(monkeypatch, "console", **CONVEX) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("console needs PortAudio")
    assert "apt install libportaudio2" in line


def test_keys_prints_a_pair_that_belongs_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "keys") == 0
    printed = env_lines(capsys.readouterr().out)
    key = AgentKey.from_env(printed)
    assert printed["AGENT_JWKS"] == key.jwks_data_uri()
    assert printed["AGENT_JWT_ISSUER"] == key.issuer


def test_keys_prints_what_belongs_to_the_key_that_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = AgentKey.generate(issuer="https://school.example/agent")
    variables = {"CONVEX_AGENT_KEY": key.pem(), "CONVEX_AGENT_ISSUER": key.issuer}
    assert run(monkeypatch, "keys", **variables) == 0
    printed = env_lines(capsys.readouterr().out)
    assert printed["AGENT_JWKS"] == key.jwks_data_uri()
    assert printed["AGENT_JWT_ISSUER"] == "https://school.example/agent"


def test_keys_says_what_to_do_with_a_key_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "keys", CONVEX_AGENT_KEY="-----BEGIN nothing") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("with CONVEX_AGENT_KEY unset, this command makes a new one.")


def test_dev_starts_convex_local_and_keeps_its_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[dict[str, object]] = []

    class Stage:
        url = "http://127.0.0.1:3210"
        admin_key = "admin|key"

        def __enter__(self) -> Stage:
            return self

        def __exit__(self, *error: object) -> None:
            started.append({"closed": True})

    def start(**options: object) -> Stage:
        started.append(options)
        return Stage()

    monkeypatch.setattr(convex_local, "ROOT", tmp_path)
    monkeypatch.setattr(convex_local.ConvexLocal, "start", start)
    seen = handed_to_livekit(monkeypatch)

    assert run(monkeypatch, "dev", **LIVEKIT) == 0

    options, closed = started
    key = options["agent_key"]
    assert isinstance(key, AgentKey)
    assert (options["watch"], options["port"]) == (True, 3210)
    assert options["db"] == tmp_path / ".emma" / "convex.sqlite3"
    assert seen == [["dev", "--no-reload"]]
    assert os.environ["CONVEX_URL"] == "http://127.0.0.1:3210"
    assert os.environ["CONVEX_AGENT_KEY"] == key.pem()
    assert os.environ["EMMA_OUTBOX_DIR"] == str(tmp_path / ".emma" / "outbox")
    admin = tmp_path / ".emma" / "convex.env"
    assert "CONVEX_SELF_HOSTED_ADMIN_KEY='admin|key'" in admin.read_text()
    assert stat.S_IMODE(admin.stat().st_mode) == 0o600
    assert closed == {"closed": True}


def test_dev_says_what_to_do_where_convex_local_finds_its_port_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def taken(**options: object) -> NoReturn:
        raise PortInUseError("convex-local cannot start: port 3210 is in use.")

    monkeypatch.setattr(convex_local, "ROOT", tmp_path)
    monkeypatch.setattr(convex_local.ConvexLocal, "start", taken)
    assert run(monkeypatch, "dev", **LIVEKIT) == 2
    assert capsys.readouterr().err.splitlines() == [
        "convex-local cannot start: port 3210 is in use. End what runs there, or set CONVEX_URL "
        "and CONVEX_AGENT_KEY to use a deployment."
    ]


def test_what_convex_local_tells_of_changed_functions_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli._event_of_convex({"event": "reloaded"})
    cli._event_of_convex({"event": "compile_error", "message": "convex/a.ts:1:1: ERROR"})
    assert capsys.readouterr().err.splitlines() == [
        "[convex] functions reloaded",
        "[convex] the old functions stay, the new ones do not compile:",
        "convex/a.ts:1:1: ERROR",
    ]


def env_lines(text: str) -> dict[str, str]:
    """The lines of an env file, read as a shell and Docker Compose do."""
    pairs = [line.split("=", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: value.removeprefix('"').removesuffix('"') for name, value in pairs}
