"""The command line: LiveKit's commands as its users know them, and what Emma adds.

Settings are checked before anything starts: one line for each problem, exit code 2.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn

import typer

from emma_agent import outbox_commands
from emma_agent.settings import Command, Settings, SettingsError, get_settings
from livekit.plugins.convex import ConfigurationError, OutboxError

__all__ = ["app", "main"]

_LIVEKIT: Final = "LiveKit"
# Options that belong to LiveKit's own command of the same name are handed on as they are.
_PASS_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    name="python -m emma_agent",
    help="Emma, a voice language tutor on LiveKit whose lessons are kept in Convex.",
    epilog="Settings come from the environment; docker/.env.example lists them all.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(outbox_commands.app, name="outbox")

Url = Annotated[
    str | None, typer.Option(help="LiveKit server.", envvar="LIVEKIT_URL", rich_help_panel=_LIVEKIT)
]
ApiKey = Annotated[
    str | None,
    typer.Option(help="LiveKit API key.", envvar="LIVEKIT_API_KEY", rich_help_panel=_LIVEKIT),
]
ApiSecret = Annotated[
    str | None,
    typer.Option(
        help="LiveKit API secret.",
        envvar="LIVEKIT_API_SECRET",
        rich_help_panel=_LIVEKIT,
    ),
]


@app.command(context_settings=_PASS_ON)
def dev(
    ctx: typer.Context, url: Url = None, api_key: ApiKey = None, api_secret: ApiSecret = None
) -> None:
    """Run a worker while you develop; starts convex-local if CONVEX_URL is not set.

    LiveKit's own options of `dev` may follow, such as --log-level debug.
    """
    _export(LIVEKIT_URL=url, LIVEKIT_API_KEY=api_key, LIVEKIT_API_SECRET=api_secret)
    # LiveKit has removed reloading; without this it says so at every start.
    reload = [] if "--reload" in ctx.args else ["--no-reload"]
    with _convex_for_development("dev"):
        _run_livekit("dev", [*reload, *ctx.args])


@app.command(context_settings=_PASS_ON)
def start(
    ctx: typer.Context, url: Url = None, api_key: ApiKey = None, api_secret: ApiSecret = None
) -> None:
    """Run a worker in production, against the deployment in CONVEX_URL.

    LiveKit's own options of `start` may follow: --drain-timeout, --log-level.
    """
    _export(LIVEKIT_URL=url, LIVEKIT_API_KEY=api_key, LIVEKIT_API_SECRET=api_secret)
    _run_livekit("start", ctx.args)


@app.command(context_settings=_PASS_ON)
def console(ctx: typer.Context) -> None:
    """Talk to Emma in this terminal, without a LiveKit server.

    LiveKit's own options of `console` may follow: --text, --list-devices, --input-device.
    """
    _require_portaudio()
    with _convex_for_development("console"):
        _run_livekit("console", ctx.args)


@app.command(context_settings=_PASS_ON)
def connect(
    ctx: typer.Context,
    room: Annotated[str, typer.Option(help="Room to join.", rich_help_panel=_LIVEKIT)],
    url: Url = None,
    api_key: ApiKey = None,
    api_secret: ApiSecret = None,
) -> None:
    """Send Emma into one room at once, without a dispatch.

    LiveKit's own options of `connect` may follow: --participant-identity, --log-level.
    """
    _export(LIVEKIT_URL=url, LIVEKIT_API_KEY=api_key, LIVEKIT_API_SECRET=api_secret)
    with _convex_for_development("connect"):
        _run_livekit("connect", ["--room", room, *ctx.args])


@app.command(context_settings={**_PASS_ON, "help_option_names": []})
def demo(ctx: typer.Context) -> None:
    """Hold one short lesson with a simulated student: no key, no account, no internet."""
    stage = importlib.import_module("emma_agent.demo.__main__")
    raise typer.Exit(stage.main(ctx.args))


@app.command()
def keys() -> None:
    """Print the agent's key, and what the Convex deployment must be told of it.

    Prints what belongs to the key in CONVEX_AGENT_KEY, or makes a new one.
    """
    from livekit.plugins.convex import AgentKey

    settings = _settings()
    try:
        key = settings.agent_key() if settings.convex_agent_key else AgentKey.generate()
    except ConfigurationError as error:
        _refuse([f"{error}; with CONVEX_AGENT_KEY unset, this command makes a new one."])
    pem = key.pem().strip().replace("\n", "\\n")
    issuer, jwks = key.issuer, key.jwks_data_uri()
    typer.echo("# For the worker. A secret: keep it where only the worker reads it.")
    typer.echo(f'CONVEX_AGENT_KEY="{pem}"')
    typer.echo("# For the deployment, not secret. With the Convex command line:")
    typer.echo(f"#   npx convex env set AGENT_JWT_ISSUER {shlex.quote(issuer)}")
    typer.echo(f"#   npx convex env set AGENT_JWKS {shlex.quote(jwks)}")
    typer.echo(f'AGENT_JWT_ISSUER="{issuer}"')
    typer.echo(f'AGENT_JWKS="{jwks}"')


@app.command("doctor")
def run_doctor(as_json: outbox_commands.AsJson = False) -> None:
    """Look at everything that a worker here needs; exit code 1 if a lesson would fail for it."""
    from emma_agent import doctor

    raise typer.Exit(doctor.main(as_json=as_json))


@app.command("import-lessons")
def import_lessons(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE…",
            help="JSON files, as lessons/README.md describes them.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Write lessons, courses and avatars from files: all or nothing, repeatable.

    Without FILE: the lessons that come with the project. Needs the deployment's admin key in
    CONVEX_ADMIN_KEY, or a running `dev`.
    """
    from emma_agent import school

    administrator = school.administrator()
    _print(school.import_lessons(administrator, files or school.shipped_lessons()))


@app.command()
def seed() -> None:
    """Make the demo's student and lesson, or bring them back to what they were.

    Needs the deployment's admin key in CONVEX_ADMIN_KEY, or a running `dev`.
    """
    from emma_agent import school

    _print(school.seed_demo(school.administrator()))


StudentId = Annotated[str, typer.Argument(metavar="STUDENT_ID", help="Convex's id of the student.")]


@app.command()
def erase(
    student_id: StudentId,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking.")] = False,
) -> None:
    """Remove a student everywhere, for good; prints what was removed.

    Run again it goes on where it was, and prints the receipt. Needs the deployment's admin key in
    CONVEX_ADMIN_KEY, or a running `dev`.
    """
    from emma_agent import erasure, school
    from emma_agent.convex_local import ROOT

    directories = dict.fromkeys((_settings().outbox_directory, ROOT / ".emma" / "outbox"))
    administrator = school.administrator()
    if erasure.receipt_of(administrator, student_id) is None:
        name = erasure.name_of(administrator, student_id)
        if not yes:
            typer.confirm(
                f"Erase {name} ({student_id}) and everything held about them at "
                f"{administrator.url}? Nothing brings it back.",
                abort=True,
            )

    def progress(receipt: erasure.Receipt) -> None:
        typer.echo(f"{receipt.rows:,} rows deleted", err=True)

    receipt = erasure.erase(administrator, student_id, on_progress=progress)
    _print(erasure.table_of(receipt))
    for directory in directories:
        _print(erasure.erase_here(directory, student_id=student_id, deployment=administrator.url))
    typer.echo(erasure.OUT_OF_REACH)


@app.command()
def export(
    student_id: StudentId,
    form: Annotated[
        Literal["jsonl", "csv", "xapi"],
        typer.Option("--format", help="JSON Lines, a CSV file for each table, xAPI statements."),
    ] = "jsonl",
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the files go; without, standard output.", file_okay=False
        ),
    ] = None,
) -> None:
    """Write everything that is held about a student.

    Needs the deployment's admin key in CONVEX_ADMIN_KEY, or a running `dev`.
    """
    from emma_agent import school
    from emma_agent.export import export as export_rows

    if form == "csv" and output is None:
        _refuse(["--format csv makes one file for each table: give a directory with --output."])
    paths = export_rows(school.administrator(), student_id, form=form, output=output)
    for path in paths:
        typer.echo(path, err=True)


def main() -> None:
    """Run the command line; settings that cannot work are reported here."""
    from emma_agent.convex_local import ConvexLocalError, PortInUseError
    from emma_agent.school import CallError

    try:
        app()
    except SettingsError as error:
        _refuse(error.problems)
    except CallError as error:
        _refuse(error.problems, exit_code=1)
    except PortInUseError as error:
        remedy = "End what runs there, or set CONVEX_URL and CONVEX_AGENT_KEY to use a deployment."
        _refuse([f"{error} {remedy}"])
    except (ConfigurationError, ConvexLocalError, OutboxError) as error:
        _refuse([str(error)])


def _run_livekit(command: Command, arguments: list[str]) -> None:
    _settings().require(command).prepare_outbox()
    # After the check: importing the server reads the settings.
    from livekit.agents import cli

    from emma_agent.server import server

    sys.argv = [f"{app.info.name}", command, *arguments]
    cli.run_app(server)


@contextmanager
def _convex_for_development(command: Command) -> Iterator[None]:
    """Start convex-local unless a deployment is named; its data stays in `.emma/`."""
    settings = _settings()
    if settings.deployment_url is not None:
        yield
        return
    settings.require(command, embedded_convex=True)
    from emma_agent.convex_local import ROOT, ConvexLocal, dev_agent_key, dev_erasure_key

    data_dir = ROOT / ".emma"
    key = dev_agent_key(data_dir)
    local = ConvexLocal.start(
        db=data_dir / "convex.sqlite3",
        port=3210,
        agent_key=key,
        env={"ERASURE_KEY": dev_erasure_key(data_dir)},
        watch=True,
        on_log=_from_convex,
        on_event=_event_of_convex,
    )
    with local:
        _write_private(
            data_dir / "convex.env",
            f"CONVEX_SELF_HOSTED_URL={local.url}\n"
            f"CONVEX_SELF_HOSTED_ADMIN_KEY='{local.admin_key}'\n",
        )
        typer.echo(
            f"convex-local is at {local.url}, its data in {data_dir}. For a student and a lesson: "
            "python -m emma_agent seed",
            err=True,
        )
        _export(CONVEX_URL=local.url, CONVEX_AGENT_KEY=key.pem(), CONVEX_AGENT_ISSUER=key.issuer)
        # Journals belong to these data: another database may be at this address tomorrow.
        _export(EMMA_OUTBOX_DIR=str(settings.outbox_dir or data_dir / "outbox"))
        get_settings.cache_clear()
        yield


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _from_convex(line: str) -> None:
    typer.echo(f"[convex] {line}", err=True)


def _event_of_convex(event: Mapping[str, object]) -> None:
    match event:
        case {"event": "reloaded"}:
            _from_convex("functions reloaded")
        case {"event": "compile_error", "message": message}:
            _from_convex(f"the old functions stay, the new ones do not compile:\n{message}")


def _require_portaudio() -> None:
    try:
        importlib.import_module("sounddevice")
    except (ImportError, OSError):
        _refuse(
            [
                "console needs PortAudio, which is not on this machine: `apt install libportaudio2` "
                "(Debian, Ubuntu) or `brew install portaudio` (macOS); "
                "`python -m emma_agent demo` needs no sound card."
            ]
        )


def _export(**values: str | None) -> None:
    """Set environment variables: LiveKit and the job processes read them there."""
    os.environ.update({name: value for name, value in values.items() if value})


def _settings() -> Settings:
    get_settings.cache_clear()
    return get_settings()


def _print(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)


def _refuse(problems: list[str], *, exit_code: int = 2) -> NoReturn:
    for problem in problems:
        typer.echo(problem, err=True)
    raise SystemExit(exit_code)
