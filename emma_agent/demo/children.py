"""Processes that never outlive the demo.

Each child leads a session of its own, so that Ctrl-C at the terminal reaches the demo alone
and the demo ends the rest in order. A child is ended by its id: first a request, then, past
its grace, the whole group by force. If the demo itself is killed, the kernel kills its
children (Linux), and those that watch their stdin see it close.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Child", "ChildEndedError", "last_lines"]

# Runs in the child before the program: die with the parent, and if the parent is already
# gone by then, do not start at all. The setting survives exec. (prctl(2), PR_SET_PDEATHSIG.)
_LEASH: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execvpe(sys.argv[2], sys.argv[2:], os.environ)
"""


class ChildEndedError(RuntimeError):
    """A child ended although it was still needed."""

    def __init__(self, child: Child) -> None:
        super().__init__(f"{child.name} ended by itself (exit code {child.returncode}).")
        self.child = child


class Child:
    """One process, its log file, and its end."""

    def __init__(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str], log: Path
    ) -> None:
        """Start `command` at once; must be called on the event loop.

        Args:
            name: as the terminal shows it, such as `the worker`.
            env: the whole environment.
            log: gets stdout and stderr.
        """
        self.name = name
        self.log = log
        self.exited = asyncio.Event()
        leash = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid())]
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [*(leash if sys.platform == "linux" else ()), *command],
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, name=f"watch {name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Id of the process, and of its group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code once it has ended; negative for a signal."""
        return self._process.returncode

    async def stop(self, *, grace_s: float = 5.0, first: signal.Signals = signal.SIGTERM) -> None:
        """End it and everything it started; returns when it is gone. Safe to call twice.

        Cancellation shortens the grace to nothing and still ends it.
        """
        if self.exited.is_set():
            return
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._signal(first)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self.exited.wait()
        finally:
            self.kill()
        await self.exited.wait()

    def kill(self) -> None:
        """Kill the process and its group now, without waiting."""
        if not self.exited.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def wait_for(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait until `ready()`; it is asked several times a second.

        Raises:
            ChildEndedError: the process ended first.
            TimeoutError: it was not ready in time.
        """
        async with asyncio.timeout(timeout_s):
            while not ready():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await self.exited.wait()
                if self.exited.is_set():
                    raise ChildEndedError(self)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _watch(self) -> None:
        """Note the end; sweep the group before the id can be given to someone else."""
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            # While the leader is not reaped, its id still names the group and nothing else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.exited.set)


def last_lines(log: Path, *, count: int = 12) -> list[str]:
    """The end of a log file, or nothing if there is none."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=count)]
    except FileNotFoundError:
        return []
