"""The `outbox` commands: what waits on disk for Convex, and how it gets there.

Exit codes are for scripts: 0 nothing is left to do, 1 something is, 2 it could not be found out.
What a student said is shown by `--show` alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from emma_agent.outbox_drain import drain_outbox
from emma_agent.outbox_state import Standing, standing_of
from emma_agent.settings import Settings, SettingsError, get_settings
from livekit.plugins.convex import ConfigurationError, JournalLockedError
from livekit.plugins.convex.inspection import DeadRecord, dead_records, journals, lines
from livekit.plugins.convex.set_aside import Retried, SetAside

__all__ = ["app"]

app = typer.Typer(help="Look after the records that wait on disk for Convex.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Show = Annotated[
    bool, typer.Option("--show", help="Show what was said too; it is hidden otherwise.")
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, as `status` shows it.")]

# Of a record, what is no content: neither said by somebody nor written for them.
_SHOWN: Final = frozenset(
    {
        "agentName",
        "callId",
        "code",
        "correctionId",
        "createdAt",
        "deployment",
        "errorType",
        "exerciseId",
        "field",
        "format",
        "itemId",
        "jobId",
        "kind",
        "language",
        "lessonId",
        "model",
        "name",
        "newAgent",
        "ofKind",
        "oldAgent",
        "participantIdentity",
        "provider",
        "reason",
        "recordVersion",
        "role",
        "room",
        "runId",
        "seq",
        "sessionKey",
        "severity",
        "source",
        "speakerId",
        "startedAtMs",
        "state",
        "steadyAtMs",
        "studentId",
        "subject",
        "type",
        "who",
    }
)


@app.command()
def status(as_json: AsJson = False) -> None:
    """What lies in the outbox: exit code 0 if nothing waits, 1 if something does."""
    settings = get_settings()
    directory = _directory(settings)
    with _readable(directory):
        found = standing_of(
            journals(directory), dead_records(directory), deployment=settings.deployment_url
        )
    if as_json:
        _print_json(
            {
                "directory": str(directory),
                "deployment": settings.deployment_url,
                "journals": [one.as_dict() for one in found],
                "pending": sum(one.pending for one in found),
                "bytes": sum(one.size for one in found),
            }
        )
    else:
        _print_status(directory, found)
    raise typer.Exit(1 if any(one.waits for one in found) else 0)


@app.command()
def drain(
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds after which to give up.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Deliver now what waits for the deployment in CONVEX_URL.

    Exit code 0 if all was delivered, 1 if something is left. While Convex is out of reach it is
    asked again for 30 seconds, or until --timeout. Ctrl-C stops it; nothing is lost by that.
    """
    settings = get_settings().require("outbox")
    directory = _directory(settings)
    _quiet()
    with _readable(directory):
        drained = drain_outbox(settings, directory, timeout_s=timeout, quiet=as_json)
        left = [one for one in drained.left if one.waits]
    if as_json:
        _print_json(
            {
                "delivered": drained.delivered,
                "runsLost": drained.runs_lost,
                "interrupted": drained.interrupted,
                "left": [one.as_dict() for one in left],
            }
        )
    else:
        stopped = "Interrupted. " if drained.interrupted else ""
        typer.echo(f"{stopped}Delivered: {drained.delivered} records.")
        for one in left:
            typer.echo(one.line())
    raise typer.Exit(1 if left else 0)


@app.command()
def dead(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Of this run alone.")] = None,
    show: Show = False,
    as_json: AsJson = False,
) -> None:
    """The records that Convex refused for good, and why; exit code 1 if there are any."""
    directory = _directory(get_settings())
    with _readable(directory):
        found = dead_records(directory, run)
    if as_json:
        _print_json([_dead_as_dict(one, show=show) for one in found])
    else:
        for one in found:
            told = f"{one.code}: {one.field}" if one.field else one.code
            typer.echo(
                f"{one.run_id} {one.seq} {one.kind}: {told}, {_instant(one.at)}; "
                f"`python -m emma_agent outbox retry {one.run_id} {one.seq}` sends it again, with "
                "--truncate cut to fit"
            )
            if show:
                typer.echo(json.dumps(one.record, ensure_ascii=False, indent=2))
    raise typer.Exit(1 if found else 0)


@app.command()
def retry(
    run: RunId,
    seq: Annotated[
        int | None, typer.Argument(metavar="[SEQ]", help="This record alone, of those set aside.")
    ] = None,
    edit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Send this record in its place; needs SEQ. `dead RUN --show` shows the refused one.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut what is too long to what Convex takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send records that were set aside again; those that Convex takes leave the dead file."""
    settings = get_settings().require("outbox")
    directory = _directory(settings)
    record = None if edit is None else _record_in(edit)
    if record is not None and seq is None:
        raise SettingsError(["--edit mends one record: say which, `outbox retry RUN SEQ`."])
    _quiet()
    with _readable(directory):
        try:
            taken = SetAside.take(directory, run)
        except JournalLockedError as error:
            typer.echo(f"{error}.", err=True)
            raise typer.Exit(1) from None
        with taken:
            _check_retry(taken, settings, seq)
            chosen = sorted(taken.entries) if seq is None else [seq]
            tried = asyncio.run(_retry(taken, settings, chosen, record, truncate=truncate))
    if as_json:
        _print_json([_retried_as_dict(run, one) for one in tried])
    else:
        for one in tried:
            typer.echo(_retried_line(run, one))
    raise typer.Exit(0 if all(one.outcome in ("taken", "erased") for one in tried) else 1)


@app.command()
def inspect(run: RunId, show: Show = False) -> None:
    """A run's journal as JSON lines: its header, then its records; what was said is hidden."""
    directory = _directory(get_settings())
    paths = [directory / f"{run}{suffix}" for suffix in (".journal", ".damaged")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise SettingsError([f"There is no journal of a run {run} in {directory}."])
    with _readable(directory):
        for line in lines(path):
            shown = {"damaged": True} if line is None else line if show else hidden(line)
            typer.echo(json.dumps(shown, ensure_ascii=False))


@app.command()
def readdress(
    old: Annotated[
        str,
        typer.Option(
            "--from", metavar="URL", help="The deployment that the journals name, as it was logged."
        ),
    ],
) -> None:
    """Send what waits for one deployment to the deployment in CONVEX_URL instead.

    For lessons held while CONVEX_URL was wrong. A running worker delivers them with its next sweep.
    Journals of lessons still being held stay as they are.
    """
    from livekit.plugins.convex.recovery import readdress as readdress_journals
    from livekit.plugins.convex.transport import check_url

    settings = get_settings()
    new = settings.deployment_url
    if new is None:
        raise SettingsError(
            ["CONVEX_URL is not set: give the deployment that is to get the records."]
        )
    try:
        old = check_url(old)
    except ConfigurationError as error:
        raise SettingsError([f"--from {str(error).removeprefix('CONVEX_URL ')}."]) from None
    if old == new:
        raise SettingsError(
            [f"--from names the deployment in CONVEX_URL itself ({new}); nothing to do."]
        )
    directory = _directory(settings)
    count = readdress_journals(directory, old=old, new=new)
    typer.echo(f"Journals in {directory} that now go to {new} instead of {old}: {count}")


def hidden(line: dict[str, Any]) -> dict[str, Any]:
    """A header or record without what was said: texts as their sizes."""
    return {
        name: value if name in _SHOWN or not _may_tell(value) else _size_of(value)
        for name, value in line.items()
    }


def _may_tell(value: object) -> bool:
    return isinstance(value, (str, list, dict))


def _size_of(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"<{len(text.encode('utf-8', 'replace'))} bytes>"


async def _retry(
    taken: SetAside,
    settings: Settings,
    chosen: list[int],
    record: dict[str, Any] | None,
    *,
    truncate: bool,
) -> list[Retried]:
    from emma_agent.deployment import worker_client
    from livekit.plugins.convex.recorder import speaking_for

    async with worker_client(settings) as worker:
        client = speaking_for(worker, taken.header)
        try:
            return [
                await taken.retry(client, seq, record=record, truncate=truncate) for seq in chosen
            ]
        finally:
            await client.aclose()


def _check_retry(taken: SetAside, settings: Settings, seq: int | None) -> None:
    deployment = taken.header.deployment
    if deployment not in ("", settings.deployment_url):
        raise SettingsError(
            [
                f"These records were refused by {deployment}, and CONVEX_URL is "
                f"{settings.deployment_url}: set it to theirs."
            ]
        )
    if seq is not None and seq not in taken.entries:
        known = ", ".join(map(str, sorted(taken.entries)))
        raise SettingsError([f"No record {seq} of this run was set aside; there is: {known}."])


def _retried_line(run: str, one: Retried) -> str:
    cut = f" (cut: {', '.join(one.cut)})" if one.cut else ""
    if one.outcome in ("taken", "erased"):
        return f"{run} {one.seq}: {one.outcome}{cut}"
    field = f": {one.field}" if one.field else ""
    return f"{run} {one.seq}: {one.outcome}{cut}, {one.reason}{field}; {one.remedy}"


def _retried_as_dict(run: str, one: Retried) -> dict[str, Any]:
    return {
        "run": run,
        "seq": one.seq,
        "outcome": one.outcome,
        "reason": one.reason,
        "field": one.field,
        "remedy": one.remedy,
        "cut": list(one.cut),
    }


def _dead_as_dict(one: DeadRecord, *, show: bool) -> dict[str, Any]:
    return {
        "run": one.run_id,
        "session": one.header.session_key if one.header else None,
        "deployment": one.header.deployment if one.header else None,
        "seq": one.seq,
        "kind": one.kind,
        "code": one.code,
        "field": one.field,
        "at": one.at,
        **({"record": one.record} if show else {}),
    }


def _print_status(directory: Path, found: list[Standing]) -> None:
    if not found:
        typer.echo(f"Nothing waits in {directory}.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, right in (
        ("run", False),
        ("session", False),
        ("deployment", False),
        ("records", True),
        ("confirmed", True),
        ("pending", True),
        ("bytes", True),
        ("age", True),
        ("state", False),
    ):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for one in found:
        table.add_row(
            one.run_id,
            one.session_key or "",
            one.deployment or "",
            *(f"{number:,}" for number in (one.records, one.confirmed, one.pending, one.size)),
            _age(one.age_s),
            one.state,
        )
    table.add_row(
        f"{len(found)} in all",
        *("", ""),
        *(
            f"{sum(numbers):,}"
            for numbers in zip(
                *((one.records, one.confirmed, one.pending, one.size) for one in found),
                strict=True,
            )
        ),
    )
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=240)
    console.print(table)
    for one in found:
        if one.remedy is not None:
            typer.echo(one.line())


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _instant(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _record_in(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(
            [f"--edit {path} cannot be read as JSON ({type(error).__name__})."]
        ) from None
    if not isinstance(record, dict):
        raise SettingsError([f"--edit {path} holds no record: it must be one JSON object."])
    return record


def _directory(settings: Settings) -> Path:
    directory = settings.outbox_directory
    if not directory.is_dir():
        # Not "nothing waits": a script would believe it of a directory that it has misspelt.
        raise SettingsError(
            [f"EMMA_OUTBOX_DIR: there is no directory {directory}; give the worker's own."]
        )
    return directory


@contextmanager
def _readable(directory: Path) -> Iterator[None]:
    """What the disk refuses is the operator's to mend: one line, exit code 2."""
    try:
        yield
    except OSError as error:
        raise SettingsError(
            [
                f"EMMA_OUTBOX_DIR: {directory} cannot be used ({error.strerror}); run this as the "
                "worker's user."
            ]
        ) from None


def _quiet() -> None:
    """The commands themselves say what the plugin would log."""
    logging.getLogger("livekit.plugins.convex").addHandler(logging.NullHandler())


def _print_json(value: Iterable[Any]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
