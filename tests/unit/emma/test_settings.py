"""Settings: each problem is one line that names the variable and the remedy."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from emma_agent.settings import Command, Settings, SettingsError
from livekit.plugins.convex import AgentKey, AsyncConvexClient, ConfigurationError

COMPLETE = {
    "LIVEKIT_URL": "wss://school.livekit.cloud",
    "LIVEKIT_API_KEY": "key",
    "LIVEKIT_API_SECRET": "livekit-secret",
    "OPENAI_API_KEY": "openai-secret",
    "CONVEX_URL": "https://happy-animal-123.convex.cloud",
    "CONVEX_AGENT_KEY": AgentKey.generate().pem(),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("LIVEKIT_", "OPENAI_", "CONVEX_", "NEXT_PUBLIC_", "EMMA_")):
            monkeypatch.delenv(name)


def set_all(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    for name, value in {**COMPLETE, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def problems_of(command: Command) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.load().require(command)
    assert str(caught.value).splitlines() == caught.value.problems
    return caught.value.problems


@pytest.mark.parametrize("command", ["start", "dev", "connect", "console", "outbox"])
def test_a_complete_environment_is_enough(
    monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    set_all(monkeypatch)
    settings = Settings.load().require(command)
    assert settings.deployment_url == "https://happy-animal-123.convex.cloud"
    assert settings.agent_key().pem() == COMPLETE["CONVEX_AGENT_KEY"]


def test_start_names_every_missing_variable_once() -> None:
    named = [problem.split(" ")[0] for problem in problems_of("start")]
    assert named == [
        "LIVEKIT_URL",
        "LIVEKIT_API_KEY",
        "LIVEKIT_API_SECRET",
        "OPENAI_API_KEY",
        "CONVEX_URL",
        "CONVEX_AGENT_KEY",
    ]


@pytest.mark.parametrize(
    ("variable", "remedy"),
    [
        ("LIVEKIT_URL", "livekit-server --dev"),
        ("LIVEKIT_API_KEY", "devkey"),
        ("LIVEKIT_API_SECRET", "secret"),
        ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
        ("CONVEX_URL", "emma_agent dev"),
        ("CONVEX_AGENT_KEY", "emma_agent keys"),
    ],
)
def test_a_missing_variable_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, variable: str, remedy: str
) -> None:
    set_all(monkeypatch, **{variable: None})
    [problem] = problems_of("start")
    assert problem.startswith(f"{variable} is not set: ")
    assert remedy in problem


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("CONVEX_URL", "https://happy-animal-123.convex.site", "ends in .convex.cloud"),
        ("CONVEX_URL", "happy-animal-123.convex.cloud", "is not an absolute http(s) address"),
        ("CONVEX_URL", "http://127.0.0.1:3210/api/query", "write only http://127.0.0.1:3210"),
        ("CONVEX_URL", "http://a:99999", "is not an absolute http(s) address"),
        ("CONVEX_URL", "http://@a:1", "holds a user name or a password"),
        ("CONVEX_URL", "http://[::1", "is not an absolute http(s) address"),
        ("NEXT_PUBLIC_CONVEX_URL", "ws://a", "write http:// instead"),
        ("LIVEKIT_URL", "127.0.0.1:7880", "is not a URL"),
        ("LIVEKIT_URL", "ws://a:99999", "is not a URL"),
        ("LIVEKIT_URL", "ws://[::1", "is not a URL"),
        ("OPENAI_BASE_URL", "http://user:word@a", "has parts that do not belong into it"),
        ("OPENAI_BASE_URL", "localhost", "is not a URL"),
        ("EMMA_TURN_DETECTION", "v1", "'v1-mini' or 'vad'"),
        ("EMMA_SPEECH", "silent", "'pipeline', 'realtime' or 'offline'"),
        ("EMMA_STT_BASE_URL", "localhost", "is not a URL"),
        ("EMMA_LOG_LEVEL", "loud", "'DEBUG'"),
        ("EMMA_OUTBOX_DIR", "outbox", "absolute path"),
    ],
)
def test_a_value_that_cannot_be_right_is_named_with_what_would_be(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    set_all(monkeypatch, **{variable: value})
    [problem] = problems_of("start")
    assert problem.startswith(f"{variable} ")
    assert problem.count("CONVEX_URL") == variable.count("CONVEX_URL")
    assert says in problem
    assert "\n" not in problem


@pytest.mark.parametrize("value", ["http://a:99999", "http://@a:1", "http://[::1", "http://a/b"])
def test_what_the_settings_take_for_an_address_the_client_takes_too(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    set_all(monkeypatch, CONVEX_URL=value)
    with pytest.raises(ConfigurationError):
        AsyncConvexClient(value, token=None)
    with pytest.raises(SettingsError):
        Settings.load()


def test_the_two_names_of_the_deployment_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, NEXT_PUBLIC_CONVEX_URL="https://other-animal-9.convex.cloud")
    [problem] = problems_of("start")
    assert "CONVEX_URL and NEXT_PUBLIC_CONVEX_URL name different deployments" in problem


def test_the_web_pages_name_of_the_deployment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    url = COMPLETE["CONVEX_URL"]
    set_all(monkeypatch, CONVEX_URL=None, NEXT_PUBLIC_CONVEX_URL=f"{url}/")
    assert Settings.load().require("start").deployment_url == url


def test_a_foreign_key_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, CONVEX_AGENT_KEY="sk-something-else")
    [problem] = problems_of("start")
    assert problem.startswith("CONVEX_AGENT_KEY ")
    assert "sk-something-else" not in problem
    assert problem.endswith("make one with `python -m emma_agent keys`.")


@pytest.mark.parametrize(
    "key",
    [
        "-----BEGIN nothing",
        ec.generate_private_key(ec.SECP384R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode(),
    ],
)
def test_the_remedy_for_a_bad_key_is_emmas_own_command(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    set_all(monkeypatch, CONVEX_AGENT_KEY=key)
    [problem] = problems_of("start")
    assert "`python -m emma_agent keys`" in problem
    assert "python -c" not in problem


def test_the_key_may_be_one_line_or_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pem = COMPLETE["CONVEX_AGENT_KEY"]
    file = tmp_path_factory.mktemp("key") / "agent.pem"
    file.write_text(pem)
    for value in (pem.replace("\n", "\\n"), str(file)):
        set_all(monkeypatch, CONVEX_AGENT_KEY=value)
        assert Settings.load().require("start").agent_key().pem() == pem


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch)
    shown = repr(Settings.load())
    for name in ("LIVEKIT_API_SECRET", "OPENAI_API_KEY", "CONVEX_AGENT_KEY"):
        assert COMPLETE[name].splitlines()[-1] not in shown


def test_an_empty_variable_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass `${NAME:-}`."""
    unset = {"OPENAI_BASE_URL": "", "EMMA_LOG_LEVEL": "", "EMMA_AGENT_NAME": ""}
    set_all(monkeypatch, CONVEX_AGENT_ISSUER="", **unset)
    settings = Settings.load().require("start")
    assert (settings.openai_base_url, settings.log_level) == (None, None)
    assert settings.agent_name == "emma"


def test_the_outbox_is_made_for_its_owner_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = tmp_path / "state" / "outbox"
    set_all(monkeypatch, EMMA_OUTBOX_DIR=str(directory))
    assert Settings.load().prepare_outbox() == directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []


def test_an_outbox_that_cannot_be_used_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    set_all(monkeypatch, EMMA_OUTBOX_DIR=str(tmp_path / "file" / "outbox"))
    with pytest.raises(SettingsError) as caught:
        Settings.load().prepare_outbox()
    [problem] = caught.value.problems
    assert problem.startswith("EMMA_OUTBOX_DIR cannot be used (")
    assert "set it to a directory" in problem


def test_a_compatible_server_needs_no_openai_key(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OPENAI_API_KEY=None, OPENAI_BASE_URL="http://127.0.0.1:9000/v1")
    assert Settings.load().require("start").openai_api_key is None


@pytest.mark.parametrize("mode", ["pipeline", "realtime"])
def test_a_mode_that_has_no_model_names_its_own_remedy(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    set_all(monkeypatch, OPENAI_API_KEY=None, EMMA_SPEECH=mode)
    [problem] = problems_of("start")
    own = {"pipeline": "EMMA_STT_BASE_URL and EMMA_LLM", "realtime": "EMMA_REALTIME_BASE_URL"}
    assert problem.startswith("OPENAI_API_KEY is not set: ")
    assert own[mode] in problem


@pytest.mark.parametrize(
    "given",
    [
        {"EMMA_SPEECH": "offline"},
        {"EMMA_SPEECH": "realtime", "EMMA_REALTIME_BASE_URL": "http://127.0.0.1:9/v1"},
        {"EMMA_SPEECH": "realtime", "EMMA_REALTIME_API_KEY": "key"},
        {
            "EMMA_STT_BASE_URL": "http://127.0.0.1:9/v1",
            "EMMA_LLM_API_KEY": "key",
            "EMMA_TTS_BASE_URL": "http://127.0.0.1:9/v1",
        },
    ],
)
def test_servers_of_its_own_need_no_openai_key(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    set_all(monkeypatch, OPENAI_API_KEY=None, **given)
    Settings.load().require("start")


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "EMMA_TTS_BASE_URL"])
def test_offline_takes_no_server_elsewhere(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    set_all(monkeypatch, EMMA_SPEECH="offline", **{name: "https://speech.example/v1"})
    [problem] = problems_of("start")
    assert problem.startswith(f"{name} is not on this machine, and EMMA_SPEECH is offline: unset")


@pytest.mark.parametrize(("given", "taken"), [("warning", "WARN"), ("debug", "DEBUG")])
def test_log_levels_have_their_usual_names_too(
    monkeypatch: pytest.MonkeyPatch, given: str, taken: str
) -> None:
    set_all(monkeypatch, EMMA_LOG_LEVEL=given)
    assert Settings.load().log_level == taken
