"""A LiveKit server of this run alone: own keys, own ports, loopback only."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["LiveKitServer", "ServerMissingError", "free_port"]

# The server gives no job to a worker that reports a load of 0.7 or more (`agents.target_load`);
# a demo on a busy machine has one worker and would wait for ever.
_TARGET_LOAD: Final = 100.0


class ServerMissingError(RuntimeError):
    """There is no `livekit-server` here."""


@dataclass(frozen=True, slots=True)
class LiveKitServer:
    """Where the server will listen, and the keys it will accept."""

    binary: Path
    api_key: str
    api_secret: str
    port: int
    udp_port: int

    @classmethod
    def choose(cls, root: Path) -> LiveKitServer:
        """Find the program (set-up's own, else the PATH's), free ports and new keys.

        Raises:
            ServerMissingError: there is no `livekit-server`.
        """
        own = root / ".tools" / "bin" / "livekit-server"
        found = own if own.exists() else shutil.which("livekit-server")
        if found is None:
            raise ServerMissingError(
                "The demo needs livekit-server and none was found: run `make setup`."
            )
        return cls(
            binary=Path(found),
            api_key=f"demo{secrets.token_hex(4)}",
            api_secret=secrets.token_hex(32),
            port=free_port(),
            udp_port=free_port(socket.SOCK_DGRAM),
        )

    @property
    def url(self) -> str:
        """For clients and workers."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def health_url(self) -> str:
        """Answers 200 once the server is up."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def command(self) -> list[str]:
        """The command line; what must stay private goes into `env`."""
        return [str(self.binary)]

    @property
    def env(self) -> dict[str, str]:
        """The configuration. JSON is YAML; in the environment no other user can read the keys."""
        config = {
            "port": self.port,
            "bind_addresses": ["127.0.0.1"],
            "keys": {self.api_key: self.api_secret},
            "rtc": {
                # Media over UDP on loopback alone; the TCP listener would be on every interface.
                "tcp_port": 0,
                "udp_port": self.udp_port,
                "ips": {"includes": ["127.0.0.1/32"]},
                "use_external_ip": False,
                "node_ip": "127.0.0.1",
                "enable_loopback_candidate": True,
            },
            "agents": {"target_load": _TARGET_LOAD},
            "logging": {"level": "info", "json": True},
        }
        return {"LIVEKIT_CONFIG": json.dumps(config)}


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET, kind) as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
