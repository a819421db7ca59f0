"""What the worker needs to know, read from the environment once.

Every problem is one line that names the variable and the remedy; no value that may be
a secret is ever part of it. `Settings` refuses values that cannot be right; what is
merely missing depends on the command, see `Settings.require`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self, assert_never
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from livekit.plugins.convex import AgentKey, ConfigurationError
from livekit.plugins.convex.directory import why_unusable
from livekit.plugins.convex.journal import default_directory
from livekit.plugins.convex.transport import check_url

__all__ = [
    "OFFLINE_URL",
    "Command",
    "Endpoint",
    "Part",
    "Settings",
    "SettingsError",
    "SpeechMode",
    "TurnDetection",
    "get_settings",
]

TurnDetection = Literal["v1-mini", "vad"]
SpeechMode = Literal["pipeline", "realtime", "offline"]
Part = Literal["stt", "llm", "tts", "realtime"]
OFFLINE_URL: Final = "http://127.0.0.1:8901/v1"
"""Where `python -m emma_agent.demo.speech` answers."""
Command = Literal["start", "dev", "console", "connect", "outbox"]

_LEVEL_NAMES: Final = {"WARNING": "WARN"}
_LIVEKIT_REMEDIES: Final = {
    "LIVEKIT_URL": (
        "for a server on this machine run `livekit-server --dev` (`make setup` puts it into "
        ".tools/bin) and set ws://127.0.0.1:7880, otherwise take it from your LiveKit project"
    ),
    "LIVEKIT_API_KEY": "take it from your LiveKit project; `livekit-server --dev` has `devkey`",
    "LIVEKIT_API_SECRET": "take it from your LiveKit project; `livekit-server --dev` has `secret`",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that speaks OpenAI's API; without a `base_url` OpenAI itself."""

    base_url: str | None
    api_key: SecretStr | None

    @property
    def usable(self) -> bool:
        """OpenAI itself asks for a key, a compatible server need not."""
        return self.base_url is not None or self.api_key is not None

    @property
    def key(self) -> str:
        """The key to show; OpenAI's client refuses to start without one."""
        return self.api_key.get_secret_value() if self.api_key else "unused"


class SettingsError(ValueError):
    """The environment is not usable. `problems` has one line for each variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _url(schemes: tuple[str, ...], example: str) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in schemes and parts.hostname and parts.port != 0
        except ValueError:  # a bracket that does not close, a port that is none
            usable = False
        if not usable:
            raise ValueError(f"is not a URL of the kind {example}")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(f"has parts that do not belong into it; it looks like {example}")
        return value.rstrip("/")

    return AfterValidator(check)


def _convex_url(value: str) -> str:
    try:
        return check_url(value)
    except ConfigurationError as error:
        # Which of the two variables holds it is said in front of the rest.
        raise ValueError(str(error).removeprefix("CONVEX_URL ")) from None


ConvexUrl = Annotated[str, AfterValidator(_convex_url)]
LiveKitUrl = Annotated[
    str, _url(("ws", "wss", "http", "https"), "wss://my-project.livekit.cloud or ws://host:7880")
]
HttpUrl = Annotated[str, _url(("http", "https"), "https://api.openai.com/v1")]
LogLevel = Annotated[
    # LiveKit's names.
    Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: _LEVEL_NAMES.get(str(value).upper(), str(value).upper())),
]


class Settings(BaseSettings):
    """The worker's settings. Attribute names are ours, aliases the variables' names."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_ignore_empty=True,
        case_sensitive=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    livekit_url: LiveKitUrl | None = Field(None, validation_alias="LIVEKIT_URL")
    livekit_api_key: str | None = Field(None, validation_alias="LIVEKIT_API_KEY")
    livekit_api_secret: SecretStr | None = Field(None, validation_alias="LIVEKIT_API_SECRET")

    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    openai_base_url: HttpUrl | None = Field(None, validation_alias="OPENAI_BASE_URL")

    convex_url: ConvexUrl | None = Field(None, validation_alias="CONVEX_URL")
    # The web page's name for the same thing. Two of them that differ would show
    # a student another deployment than the one their lesson is written to.
    public_convex_url: ConvexUrl | None = Field(None, validation_alias="NEXT_PUBLIC_CONVEX_URL")
    convex_agent_key: SecretStr | None = Field(None, validation_alias="CONVEX_AGENT_KEY")
    convex_agent_issuer: str | None = Field(None, validation_alias="CONVEX_AGENT_ISSUER")

    outbox_dir: Path | None = Field(None, validation_alias="EMMA_OUTBOX_DIR")
    log_level: LogLevel | None = Field(None, validation_alias="EMMA_LOG_LEVEL")
    agent_name: str = Field("emma", validation_alias="EMMA_AGENT_NAME")

    turn_detection: TurnDetection = Field("v1-mini", validation_alias="EMMA_TURN_DETECTION")
    speech: SpeechMode = Field("pipeline", validation_alias="EMMA_SPEECH")
    stt_model: str = Field("gpt-4o-mini-transcribe", validation_alias="EMMA_STT_MODEL")
    stt_base_url: HttpUrl | None = Field(None, validation_alias="EMMA_STT_BASE_URL")
    stt_api_key: SecretStr | None = Field(None, validation_alias="EMMA_STT_API_KEY")
    llm_model: str = Field("gpt-4.1-mini", validation_alias="EMMA_LLM_MODEL")
    llm_base_url: HttpUrl | None = Field(None, validation_alias="EMMA_LLM_BASE_URL")
    llm_api_key: SecretStr | None = Field(None, validation_alias="EMMA_LLM_API_KEY")
    tts_model: str = Field("gpt-4o-mini-tts", validation_alias="EMMA_TTS_MODEL")
    tts_voice: str = Field("coral", validation_alias="EMMA_TTS_VOICE")
    tts_base_url: HttpUrl | None = Field(None, validation_alias="EMMA_TTS_BASE_URL")
    tts_api_key: SecretStr | None = Field(None, validation_alias="EMMA_TTS_API_KEY")
    realtime_model: str = Field("gpt-realtime", validation_alias="EMMA_REALTIME_MODEL")
    realtime_voice: str = Field("marin", validation_alias="EMMA_REALTIME_VOICE")
    realtime_base_url: HttpUrl | None = Field(None, validation_alias="EMMA_REALTIME_BASE_URL")
    realtime_api_key: SecretStr | None = Field(None, validation_alias="EMMA_REALTIME_API_KEY")

    @field_validator("outbox_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        value = value.expanduser()
        if not value.is_absolute():
            raise ValueError("must be an absolute path: every job of the worker writes there")
        if value.exists() and not value.is_dir():
            raise ValueError("is not a directory")
        return value

    @model_validator(mode="after")
    def _one_convex_url(self) -> Self:
        both_set = self.convex_url is not None and self.public_convex_url is not None
        if both_set and self.convex_url != self.public_convex_url:
            raise ValueError(
                "CONVEX_URL and NEXT_PUBLIC_CONVEX_URL name different deployments; "
                "give both the same value, or unset one of them"
            )
        return self

    @model_validator(mode="after")
    def _offline_is_offline(self) -> Self:
        if self.speech != "offline":
            return self
        given = {
            "EMMA_STT_BASE_URL": self.stt_base_url,
            "EMMA_LLM_BASE_URL": self.llm_base_url,
            "EMMA_TTS_BASE_URL": self.tts_base_url,
            "OPENAI_BASE_URL": self.openai_base_url,
        }
        for name, url in given.items():
            if url is not None and not _on_this_machine(url):
                raise ValueError(
                    f"{name} is not on this machine, and EMMA_SPEECH is offline: unset {name}, "
                    "or set EMMA_SPEECH to pipeline"
                )
        return self

    @property
    def speech_parts(self) -> tuple[Part, ...]:
        """What a lesson cannot do without."""
        return ("realtime",) if self.speech == "realtime" else ("stt", "llm", "tts")

    def endpoint(self, part: Part) -> Endpoint:
        """Where a part of the speech is asked, and with which key.

        OPENAI_API_KEY goes to OPENAI_BASE_URL alone: a server of a part's own gets that part's
        key, or none. Offline no key goes anywhere.
        """
        match part:
            case "stt":
                own = Endpoint(self.stt_base_url, self.stt_api_key)
            case "llm":
                own = Endpoint(self.llm_base_url, self.llm_api_key)
            case "tts":
                own = Endpoint(self.tts_base_url, self.tts_api_key)
            case "realtime":
                own = Endpoint(self.realtime_base_url, self.realtime_api_key)
            case _:
                assert_never(part)
        if self.speech == "offline":
            return Endpoint(own.base_url or self.openai_base_url or OFFLINE_URL, None)
        if own.base_url is not None:
            return own
        return Endpoint(self.openai_base_url, own.api_key or self.openai_api_key)

    @property
    def deployment_url(self) -> str | None:
        """The Convex deployment, by either of its two names."""
        return self.convex_url or self.public_convex_url

    @property
    def outbox_directory(self) -> Path:
        """Where records wait for Convex: EMMA_OUTBOX_DIR, else the plugin's own default."""
        return self.outbox_dir or default_directory()

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            SettingsError: a variable has a value that cannot be right.
        """
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError([_sentence(detail) for detail in error.errors()]) from None

    def agent_key(self) -> AgentKey:
        """The key the worker signs its tokens with.

        Raises:
            ConfigurationError: missing, or not such a key; it says what to do.
        """
        secret = self.convex_agent_key.get_secret_value() if self.convex_agent_key else ""
        try:
            return AgentKey.from_env(
                {"CONVEX_AGENT_KEY": secret, "CONVEX_AGENT_ISSUER": self.convex_agent_issuer or ""}
            )
        except ConfigurationError as error:
            # The plugin's remedy is for those who have nothing but the plugin.
            fault, remedy, _ = str(error).partition("make one with: ")
            own = "make one with `python -m emma_agent keys`" if remedy else ""
            raise ConfigurationError(f"{fault}{own}") from None

    def require(self, command: Command, *, embedded_convex: bool = False) -> Self:
        """Check that everything is there that `command` needs; return self.

        Args:
            embedded_convex: convex-local will be started, and brings address and key.

        Raises:
            SettingsError: one line for each variable that is missing or no key.
        """
        missing: list[str] = []
        match command:
            case "start" | "dev" | "connect":
                missing += self.missing_livekit() + self._missing_models()
            case "console":
                missing += self._missing_models()
            case "outbox":
                pass
            case _:
                assert_never(command)
        if not embedded_convex:
            missing += self._missing_convex()
        if missing:
            raise SettingsError(missing)
        return self

    def prepare_outbox(self) -> Path:
        """Make the directory where records wait for Convex, if it is not there; return it.

        For the commands that hold lessons. A lesson itself would go on without it, its records
        in memory.

        Raises:
            SettingsError: it cannot be made, written or locked, or its disk is full.
        """
        directory = self.outbox_directory
        why = why_unusable(directory)
        if why is not None:
            raise SettingsError(
                [
                    f"EMMA_OUTBOX_DIR cannot be used ({directory}: {why}): set it to a directory "
                    "on a local disk that the worker may write."
                ]
            )
        return directory

    def missing_livekit(self) -> list[str]:
        """One line for each of LiveKit's variables that is not set, with its remedy."""
        given = (self.livekit_url, self.livekit_api_key, self.livekit_api_secret)
        return [
            f"{name} is not set: {remedy}."
            for (name, remedy), value in zip(_LIVEKIT_REMEDIES.items(), given, strict=True)
            if not value
        ]

    def _missing_models(self) -> list[str]:
        lacking = [part for part in self.speech_parts if not self.endpoint(part).usable]
        if not lacking:
            return []
        if self.speech == "realtime":
            own = "EMMA_REALTIME_BASE_URL"
        else:
            own = " and ".join(f"EMMA_{part.upper()}_BASE_URL" for part in lacking)
        return [
            "OPENAI_API_KEY is not set: Emma hears, thinks and speaks through OpenAI; set a key, "
            f"or OPENAI_BASE_URL to a compatible server, or {own} "
            "(`python -m emma_agent demo` needs none of them)."
        ]

    def _missing_convex(self) -> list[str]:
        missing: list[str] = []
        if self.deployment_url is None:
            missing.append(
                "CONVEX_URL is not set: give the address of your Convex deployment "
                "(https://….convex.cloud, or of a self-hosted backend); "
                "`python -m emma_agent dev` starts one on this machine."
            )
        if self.convex_agent_key is None:
            missing.append(
                "CONVEX_AGENT_KEY is not set: `python -m emma_agent keys` makes one and says "
                "what to set on the deployment."
            )
        else:
            try:
                self.agent_key()
            except ConfigurationError as error:
                missing.append(f"{error}.")
        return missing


def _on_this_machine(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


def _sentence(detail: Mapping[str, object]) -> str:
    """One pydantic error as one line; its input value, maybe a secret, stays out."""
    text = str(detail["msg"]).removeprefix("Value error, ")
    location = detail["loc"]
    if not isinstance(location, tuple) or not location:
        return f"{text}."
    if detail["type"] == "literal_error":
        text = f"is not known: {text[0].lower()}{text[1:]}"
    return f"{location[0]} {text}."


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read on the first call."""
    return Settings.load()
