"""What an app keeps of its users beside their journals, so that it is erased with them.

    <key of the user>-<key of the deployment><the app's suffix>

The name gives nobody away, and whoever hears that a user was erased finds it without opening a file:
the lesson that is being held, recovery, and the operator's command.
"""

from __future__ import annotations

import contextlib
from hashlib import sha256
from pathlib import Path

# Hex digits: enough that no two users or deployments meet, and a name that can be read in a listing.
_USER, _DEPLOYMENT = 32, 16


def path_beside(directory: Path | str, *, subject: str, deployment: str, suffix: str) -> Path:
    """Where an app keeps something of one user, of one deployment.

    Args:
        directory: where the journals lie.
        subject: `SessionIdentity.subject`.
        deployment: `AsyncConvexClient.url`.
        suffix: the app's own, such as `.profile`; none of the plugin's (journal.py).
    """
    name = f"{_key(subject, _USER)}-{_key(deployment, _DEPLOYMENT)}{suffix}"
    return Path(directory) / name


def erase_beside(directory: Path | str, *, subject: str) -> int:
    """Delete what is kept of a user, of all deployments; return how many files.

    What is being written goes too, if its name is that of `path_beside` with a dot in front.

    Raises:
        OSError: the disk refused. It may be called again.
    """
    prefix = f"{_key(subject, _USER)}-"
    deleted = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in Path(directory).iterdir():
            if path.name.removeprefix(".").startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                    deleted += 1
    return deleted


def _key(text: str, digits: int) -> str:
    return sha256(text.encode()).hexdigest()[:digits]
