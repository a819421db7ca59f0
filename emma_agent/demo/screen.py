"""What the demo shows: plain lines, coloured at a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emma_agent.demo.exchange import Exchange, Said
from emma_agent.demo.numbers import LABELS, Numbers

if TYPE_CHECKING:
    from emma_agent.demo.rows import MessageRow
    from emma_agent.demo.verdict import Verdict

__all__ = ["Screen"]

_NAMES: Final = {"assistant": "Emma", "user": "Student"}
_CAPTION: Final = (
    "The time is from the last sound to the row's arrival in our subscription, by one clock. "
    "Student: the last sound that left the microphone; the silence that ends a turn (about "
    "1 s) and the speech recognition lie in between. Emma: her last sound as it reached the "
    "student; below zero, the row came before the sound had crossed the room."
)
# How long a row may wait for the sound it belongs to: the student calls an answer finished
# after 0.6 s of quiet.
_PAIR_TIMEOUT_S: Final = 3.0


class Screen:
    """Prints as things happen; pairs each row with the sound it holds."""

    def __init__(self, console: Console, *, pair_timeout_s: float = _PAIR_TIMEOUT_S) -> None:
        """Print to `console`.

        Args:
            pair_timeout_s: how long a row waits for the sound that it holds; then it is
                printed without a time.
        """
        self._console = console
        self._pair_timeout_s = pair_timeout_s
        self._began_at = time.monotonic()
        self._exchanges: dict[str, list[Exchange]] = {"user": [], "assistant": []}
        self._rows: asyncio.Queue[tuple[MessageRow, float]] = asyncio.Queue()
        self._heard_something = asyncio.Event()
        self.delays_ms: list[tuple[str, float]] = []
        """Role and milliseconds from the last sound to the row, in the order of the rows."""

    def say(self, text: str) -> None:
        """A line of plain text."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        """A line that begins a part."""
        self._console.print(f"\n[bold]{escape(text)}[/bold]", highlight=False, soft_wrap=True)

    def waiting(self, what: str) -> AbstractContextManager[object]:
        """Show at a terminal that something is going on; elsewhere nothing."""
        if self._console.is_terminal:
            return self._console.status(what)
        return contextlib.nullcontext()

    def ready(self, name: str) -> None:
        """Something has come up."""
        took_s = time.monotonic() - self._began_at
        self._console.print(
            f"  [green]ready[/green] after {took_s:4.1f} s  {escape(name)}", highlight=False
        )

    def on_exchange(self, exchange: Exchange) -> None:
        """The student has said or heard something."""
        role = "user" if isinstance(exchange, Said) else "assistant"
        self._exchanges[role].append(exchange)
        self._heard_something.set()

    def on_message(self, row: MessageRow, seen_at: float) -> None:
        """A row has appeared."""
        self._rows.put_nowait((row, seen_at))

    async def print_rows(self) -> None:
        """Print the rows as they appear, until cancelled."""
        counts = {"user": 0, "assistant": 0}
        while True:
            row, seen_at = await self._rows.get()
            exchange = await self._exchange(row.role, counts[row.role])
            counts[row.role] += 1
            delay = ""
            if exchange is not None:
                delay_ms = (seen_at - exchange.ended_at) * 1000
                self.delays_ms.append((row.role, delay_ms))
                delay = f"{delay_ms:+6.0f} ms"
            colour = "cyan" if row.role == "assistant" else "yellow"
            self._console.print(
                f"  {delay:>9}  [{colour}]{_NAMES[row.role]:<8}[/{colour}]{escape(row.text.strip())}",
                highlight=False,
                soft_wrap=True,
            )
            self._rows.task_done()

    @asynccontextmanager
    async def printing(self) -> AsyncIterator[None]:
        """Print the rows as they appear, until the end of the block."""
        task = asyncio.create_task(self.print_rows())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def flush(self) -> None:
        """Wait until every row so far is printed, for as long as one may take."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * self._pair_timeout_s):
                await self._rows.join()

    def caption(self) -> None:
        """Say which instants the times are between."""
        self._console.print(f"[dim]  {escape(_CAPTION)}[/dim]", highlight=False)

    def table(self, verdict: Verdict) -> None:
        """What Convex holds beside what was said and heard."""
        table = Table(show_lines=True, expand=False)
        for title in ("", "said or heard by the student", "held by Convex", ""):
            table.add_column(title, overflow="fold")
        for match in verdict.matches:
            role = match.line.role if match.line else match.row.role if match.row else ""
            table.add_row(
                _NAMES[role],
                escape(match.line.text) if match.line else "[red]-[/red]",
                escape(match.row.text.strip()) if match.row else "[red]-[/red]",
                "[green]once[/green]" if match.ok else "[red]no[/red]",
            )
        self._console.print(table)

    def numbers(self, before: Numbers, after: Numbers) -> None:
        """A student's page of numbers, before the lesson and after it."""
        table = Table(expand=False)
        table.add_column("")
        for title in ("before", "after"):
            table.add_column(title, justify="right")
        for name, label in LABELS.items():
            was, now = (f"{getattr(page, name):.4g}" for page in (before, after))
            table.add_row(label, was, now if was == now else f"[green]{now}[/green]")
        self._console.print(table)

    def failure(self, sentence: str, *, log: Path | None, lines: Sequence[str]) -> None:
        """One plain sentence, the end of the log, and where the log is."""
        self._console.print(f"\n[red]{escape(sentence)}[/red]", highlight=False, soft_wrap=True)
        for line in lines:
            self._console.print(f"  | {line}", markup=False, highlight=False, soft_wrap=True)
        if log is not None:
            self.say(f"The whole log: {log}")

    async def _exchange(self, role: str, index: int) -> Exchange | None:
        known = self._exchanges[role]
        try:
            async with asyncio.timeout(self._pair_timeout_s):
                while len(known) <= index:
                    self._heard_something.clear()
                    await self._heard_something.wait()
        except TimeoutError:
            return None
        return known[index]
