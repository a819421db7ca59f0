"""Start and stop convex-local, the Convex that runs on this machine.

For `dev`, the demo and the tests; never for production. The server is a Node program
(`plugins/convex-local`) that runs the project's own `convex/*.ts`:

    with ConvexLocal.start(db=":memory:") as local:
        client = AsyncConvexClient(url=local.url, token=AgentToken(local.agent_key, ...))

It ends with its owner: its stdin is a pipe that we hold, and it leaves when that pipe
closes, even when we were killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, TimeoutError as FutureTimeoutError
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from livekit.plugins.convex import AgentKey

__all__ = [
    "ROOT",
    "ConvexLocal",
    "ConvexLocalError",
    "PortInUseError",
    "copy_functions",
    "dev_agent_key",
    "dev_erasure_key",
    "find_node",
]

ROOT: Final = Path(__file__).resolve().parent.parent
"""The checkout: where `convex/`, `plugins/` and `.tools/` lie."""

# The first Node that runs TypeScript without a flag and has `node:sqlite`
# (package.json, "engines").
_MIN_NODE: Final = (22, 18)
_READY_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 5.0


class ConvexLocalError(RuntimeError):
    """convex-local did not start; the message is for the person at the terminal."""


class PortInUseError(ConvexLocalError):
    """Something else listens where convex-local was to."""


def find_node(root: Path = ROOT) -> Path:
    """Node.js: the one set-up put into `.tools/bin`, else the one on the PATH.

    Raises:
        ConvexLocalError: there is none, or it is too old to run convex-local.
    """
    own = root / ".tools" / "bin" / "node"
    if own.exists():
        return own
    found = shutil.which("node")
    remedy = f"Run `make setup`, or install Node.js {_MIN_NODE[0]}.{_MIN_NODE[1]} or newer."
    if found is None:
        raise ConvexLocalError(f"convex-local needs Node.js and none was found. {remedy}")
    shown = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.(\d+)", shown)
    if version is None or (int(version[1]), int(version[2])) < _MIN_NODE:
        raise ConvexLocalError(
            f"convex-local cannot run on Node.js {shown.strip() or 'of unknown version'}. {remedy}"
        )
    return Path(found)


def copy_functions(project: Path) -> None:
    """Make `project` a copy of this project's functions, to change or to run something beside them.

    The link lets the functions find their packages.
    """
    shutil.copytree(ROOT / "convex", project / "convex")
    shutil.copy(ROOT / "package.json", project)
    (project / "node_modules").symlink_to(ROOT / "node_modules")


def dev_agent_key(data_dir: Path) -> AgentKey:
    """The key that a development worker signs with, made on first use and then kept.

    Lies in `data_dir/agent-key.pem` (0600). convex-local is told the public half.

    Raises:
        ConvexLocalError: the file is there and is not a key, or it can be neither read nor made.
    """
    path = data_dir / "agent-key.pem"
    try:
        with contextlib.suppress(FileNotFoundError):
            return AgentKey.from_pem(path.read_text())
        key = AgentKey.generate()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.pem())
    except ValueError as error:
        raise ConvexLocalError(
            f"{path} is not a P-256 private key; delete it and a new one is made."
        ) from error
    except OSError as error:
        raise ConvexLocalError(
            f"{path} cannot be used ({error.strerror}); {data_dir} must be a directory that you "
            "may write: convex-local keeps its data there. Or set CONVEX_URL to use a deployment."
        ) from error
    return key


def dev_erasure_key(data_dir: Path) -> str:
    """ERASURE_KEY of the convex-local for development, made on first use and then kept.

    Raises:
        ConvexLocalError: it can be neither read nor made.
    """
    path = data_dir / "erasure-key"
    try:
        with contextlib.suppress(FileNotFoundError):
            return path.read_text()
        key = secrets.token_hex(32)
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key)
    except OSError as error:
        raise ConvexLocalError(f"{path} cannot be used ({error.strerror}).") from error
    return key


class ConvexLocal:
    """One running convex-local; a context manager, plain or `async`."""

    def __init__(
        self,
        process: subprocess.Popen[str],
        *,
        agent_key: AgentKey,
        on_log: Callable[[str], None] | None,
        on_event: Callable[[Mapping[str, object]], None] | None,
    ) -> None:
        """Use `ConvexLocal.start`."""
        self.agent_key = agent_key
        """Signs for the agent; the running server trusts it."""
        self._process = process
        self._on_log = on_log
        self._on_event = on_event
        self._ready: Future[tuple[str, str]] = Future()
        self._noting = threading.Lock()
        self._last_lines: deque[str] = deque(maxlen=200)
        self._readers = (
            threading.Thread(target=self._read_events, name="convex-local-events", daemon=True),
            threading.Thread(target=self._read_log, name="convex-local-log", daemon=True),
        )
        for reader in self._readers:
            reader.start()

    @classmethod
    def start(
        cls,
        *,
        project: Path = ROOT,
        db: Path | str = ":memory:",
        port: int = 0,
        env: Mapping[str, str] | None = None,
        agent_key: AgentKey | None = None,
        faults: bool = False,
        watch: bool = False,
        on_log: Callable[[str], None] | None = None,
        on_event: Callable[[Mapping[str, object]], None] | None = None,
    ) -> Self:
        """Start the process and return at once; `with` or `wait_ready` waits for it.

        Args:
            project: the directory that holds `convex/`.
            db: the SQLite file, or `:memory:`.
            port: 0 takes a free one.
            env: the deployment's environment variables. `AGENT_JWT_ISSUER` and
                `AGENT_JWKS` are set from the key unless they are given here.
            agent_key: made for this run if left out.
            faults: allow tests to ask for faults (`/_local/faults`).
            watch: reload the functions when their files change.
            on_log: gets each line that the server and its functions log, from the moment that
                it is ready; a server that does not get so far says it in the error. Called
                from a thread.
            on_event: gets each later event (`reloaded`, `compile_error`); from a thread.

        Raises:
            ConvexLocalError: Node.js or the server's source is missing.
        """
        node = find_node()
        main = ROOT / "plugins" / "convex-local" / "src" / "main.ts"
        if not main.exists():
            raise ConvexLocalError(
                f"convex-local is not here ({main}); it comes with a checkout of the project. "
                "Set CONVEX_URL to use a deployment instead."
            )
        key = agent_key or AgentKey.generate()
        deployment_env = {
            "AGENT_JWT_ISSUER": key.issuer,
            "AGENT_JWKS": key.jwks_data_uri(),
            **(env or {}),
        }
        command = [str(node), str(main), "--json", "--exit-with-parent"]
        command += ["--project", str(project), "--db", str(db), "--port", str(port)]
        command += ["--watch" if watch else "--no-watch"]
        command += ["--faults"] if faults else []
        for name, value in deployment_env.items():
            command += ["--env", f"{name}={value}"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C goes to the whole process group. The worker still has to deliver
            # its last records then, so the server must outlive it: EOF ends it instead.
            start_new_session=True,
        )
        return cls(process, agent_key=key, on_log=on_log, on_event=on_event)

    @property
    def url(self) -> str:
        """The deployment's URL; waits for the server if it is not ready yet."""
        return self.wait_ready()[0]

    @property
    def admin_key(self) -> str:
        """The deployment's admin key; for seeding and for `npx convex`, not for the worker."""
        return self.wait_ready()[1]

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def wait_ready(self, timeout_s: float = _READY_TIMEOUT_S) -> tuple[str, str]:
        """Wait until calls are answered; return URL and admin key.

        Raises:
            ConvexLocalError: it ended first (with the compiler's message, if `convex/`
                does not compile), or was not ready in time.
        """
        try:
            return self._ready.result(timeout_s)
        except FutureTimeoutError:
            # It does not answer, so it is not asked politely.
            self._process.terminate()
            self.close()
            raise ConvexLocalError(
                f"convex-local was not ready after {timeout_s:g} s.{self._said()}"
            ) from None

    def close(self) -> None:
        """End the server and wait for it; safe to call twice."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        for signal_it in (None, self._process.terminate, self._process.kill):
            if signal_it is not None:
                signal_it()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_S)
                break
        for reader, pipe in zip(
            self._readers, (self._process.stdout, self._process.stderr), strict=True
        ):
            reader.join(1.0)
            # A grandchild may still hold the other end: then the pipe is its reader's.
            if pipe is not None and not reader.is_alive():
                pipe.close()

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await asyncio.wrap_future(self._ready)
        except TimeoutError:
            await asyncio.to_thread(self.close)
            raise ConvexLocalError(
                f"convex-local was not ready after {_READY_TIMEOUT_S:g} s.{self._said()}"
            ) from None
        except BaseException:
            await asyncio.to_thread(self.close)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    def _read_events(self) -> None:
        for line in _lines(self._process.stdout):
            try:
                event = json.loads(line)
            except ValueError:
                self._note(line)
                continue
            if not isinstance(event, dict):
                continue
            if event.get("event") == "ready" and not self._ready.done():
                self._begin((str(event["url"]), str(event["adminKey"])))
            elif self._on_event is not None:
                self._on_event(event)
        code = self._process.wait()
        self._readers[1].join(2.0)
        if not self._ready.done():
            self._ready.set_exception(self._failure(code))

    def _begin(self, address: tuple[str, str]) -> None:
        with self._noting:
            if self._on_log is not None:
                for line in self._last_lines:
                    self._on_log(line)
            self._ready.set_result(address)

    def _failure(self, code: int) -> ConvexLocalError:
        # As plugins/convex-local/src/cli.ts says it.
        for line in self._last_lines:
            if taken := re.match(r"convex-local: port (\d+) is in use", line):
                return PortInUseError(f"convex-local cannot start: port {taken[1]} is in use.")
        return ConvexLocalError(
            f"convex-local ended at its start (exit code {code}).{self._said()}"
        )

    def _read_log(self) -> None:
        for line in _lines(self._process.stderr):
            self._note(line)

    def _note(self, line: str) -> None:
        with self._noting:
            self._last_lines.append(line)
            if self._on_log is not None and self._ready.done():
                self._on_log(line)

    def _said(self) -> str:
        said = "\n".join(self._last_lines).strip()
        return f" It said:\n{said}" if said else ""


def _lines(stream: IO[str] | None) -> Iterator[str]:
    for line in stream or ():
        yield line.rstrip("\n")
