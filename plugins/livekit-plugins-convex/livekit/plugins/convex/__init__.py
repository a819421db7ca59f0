"""Convex plugin for LiveKit Agents

Keeps what happens in an agent session in Convex while it happens: a recorder whose every event is on
disk when LiveKit's listener returns, its delivery, an async client with a deadline on every call,
live queries, signed agent tokens.

See https://docs.convex.dev for Convex and https://docs.livekit.io/agents for agents.
"""

from convex import ConvexInt64

from .auth import AgentKey, AgentToken, TokenSource
from .client import AsyncConvexClient
from .directory import check_directory
from .encoding import RecordError
from .erasure import ErasedHere, erase_journals
from .errors import (
    AuthenticationError,
    BusyError,
    ConfigurationError,
    ConvexClientError,
    EncodingError,
    ErasedError,
    FunctionError,
    JournalLockedError,
    OutboxError,
    OutboxFullError,
    RequestTimeoutError,
    TransportError,
)
from .identity import SessionIdentity
from .outbox import Outbox
from .recorder import RecorderStats, SessionRecorder
from .records import (
    ErrorRecord,
    HandoffRecord,
    LostRecord,
    MessageRecord,
    ModelUsage,
    Record,
    RunEndedRecord,
    SessionEndedRecord,
    SessionResumedRecord,
    SessionStartedRecord,
    SetAsideRecord,
    StateChangedRecord,
    ToolCallRecord,
    TranscriptRecord,
    TurnMetrics,
    UsageRecord,
)
from .recovery import Recovery, readdress
from .resuming import JournaledRun, deliver_dead_journals, read_journals
from .salvage import SweepReport
from .subscription import Subscription
from .telemetry import Telemetry, TelemetryStats
from .values import ConvexValue
from .version import __version__

__all__ = [
    "AgentKey",
    "AgentToken",
    "AsyncConvexClient",
    "AuthenticationError",
    "BusyError",
    "ConfigurationError",
    "ConvexClientError",
    "ConvexInt64",
    "ConvexValue",
    "EncodingError",
    "ErasedError",
    "ErasedHere",
    "ErrorRecord",
    "FunctionError",
    "HandoffRecord",
    "JournalLockedError",
    "JournaledRun",
    "LostRecord",
    "MessageRecord",
    "ModelUsage",
    "Outbox",
    "OutboxError",
    "OutboxFullError",
    "Record",
    "RecordError",
    "RecorderStats",
    "Recovery",
    "RequestTimeoutError",
    "RunEndedRecord",
    "SessionEndedRecord",
    "SessionIdentity",
    "SessionRecorder",
    "SessionResumedRecord",
    "SessionStartedRecord",
    "SetAsideRecord",
    "StateChangedRecord",
    "Subscription",
    "SweepReport",
    "Telemetry",
    "TelemetryStats",
    "TokenSource",
    "ToolCallRecord",
    "TranscriptRecord",
    "TransportError",
    "TurnMetrics",
    "UsageRecord",
    "__version__",
    "check_directory",
    "deliver_dead_journals",
    "erase_journals",
    "read_journals",
    "readdress",
]

from livekit.agents import Plugin

from .log import logger


class ConvexPlugin(Plugin):
    def __init__(self) -> None:
        super().__init__(__name__, __version__, __package__, logger)


Plugin.register_plugin(ConvexPlugin())

# Cleanup docs of unexported modules
_module = dir()
NOT_IN_ALL = [m for m in _module if m not in __all__]

__pdoc__ = {}

for n in NOT_IN_ALL:
    __pdoc__[n] = False
