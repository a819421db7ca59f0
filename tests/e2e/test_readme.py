"""Every command and snippet of README.md, run as far as this machine allows.

A command that nobody has said how to run fails here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for language, body in FENCES
    if language == "console"
    for line in body.splitlines()
    if line.startswith("$ ")
]
SNIPPETS = [body for language, body in FENCES if language == "python"]

# Run by another test or by what runs the tests; the file must name the command.
ELSEWHERE = {
    "make demo": "tests/e2e/test_demo_command.py",
    "make demo LESSON=short": "tests/e2e/test_short_lesson.py",
    "make demo RESUME=1": "tests/e2e/test_short_lesson.py",
    "make demo-crash": "tests/e2e/test_crash.py",
    "make test": ".ci/run",
}
# Too slow for every run, or for a deployment: what they call is checked, not run.
TARGETS = {
    "make bench",
    "make bench-queries",
    "make bench-turn",
    "make chaos",
    "make check",
    "make check-docker",
    "make codegen",
    "make verify CONVEX_URL=…",
}


def environment() -> dict[str, str]:
    """This machine's, without the settings of a deployment that someone may have set."""
    # MAKE: this may itself run below make, which then speaks of directories.
    foreign = ("LIVEKIT_", "CONVEX_", "NEXT_PUBLIC_", "OPENAI_", "EMMA_", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # The machine's own PATH, and in front of it what the README says to put there.
    own = {str(ROOT / ".tools/bin"), str(ROOT / ".venv/bin")}
    path = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if part not in own)
    (export,) = [command for command in COMMANDS if command.startswith("export PATH=")]
    value = shlex.split(export)[1].removeprefix("PATH=")
    return {**kept, "PATH": value.replace("$PWD", str(ROOT)).replace("$PATH", path)}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str) -> None:
    words = shlex.split(command)
    match words:
        case _ if command in ELSEWHERE:
            assert command in (ROOT / ELSEWHERE[command]).read_text()
        case _ if command in TARGETS:
            assert f"\n{words[1]}: " in (ROOT / "Makefile").read_text()
        case ["export", _]:
            done = run(["bash", "-c", "command -v python node npm npx livekit-server"])
            assert done.returncode == 0, done.stderr
            folders = {Path(line).parent for line in done.stdout.splitlines()}
            assert folders == {ROOT / ".tools/bin", ROOT / ".venv/bin"}
        case ["make", "bench-freeze"]:
            done = run(words)
            assert done.returncode == 0, done.stderr
            gaps = json.loads(done.stdout.splitlines()[-1])["longest_gap_ms"]
            assert {"nothing", "AsyncConvexClient.query"} < set(gaps)
        case ["make", "eval"]:
            done = run(words)
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.endswith("All 12 learners with the scripted model: right.\n")
        case ["python", "-m", "evals", *_]:
            done = run(words)
            assert done.returncode == 2, done.stdout + done.stderr
            assert done.stderr.startswith("OPENAI_API_KEY is not set: ")
        case ["make", "setup"]:
            assert run(words).returncode == 0
            again = run(words)
            assert (again.returncode, again.stdout) == (0, "")
        case ["make", "help"]:
            done = run(words)
            assert done.returncode == 0
            targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert re.findall(r"^  make (\S+)", done.stdout, re.MULTILINE) == targets
        case ["python", "-m", "emma_agent", "keys"]:
            done = run(words)
            assert done.returncode == 0, done.stderr
            assert re.search(r"^CONVEX_AGENT_KEY=", done.stdout, re.MULTILINE)
            assert re.search(r"^AGENT_JWKS=", done.stdout, re.MULTILINE)
        case ["python", "-m", "emma_agent", "doctor"]:
            done = run(words)
            assert done.returncode == 1, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            assert "FAIL convex.url" in done.stdout
        case ["python", "-m", "emma_agent", "outbox", "status" | "dead"]:
            # Of whatever lies in this user's outbox, if there is one.
            done = run(words)
            assert done.returncode in (0, 1, 2), done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            assert done.stdout or "EMMA_OUTBOX_DIR" in done.stderr or done.returncode == 0
        case ["python", "-m", "emma_agent", *_]:
            # Without settings each says what it needs, and nothing is started.
            done = run(words)
            assert done.returncode == 2, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            assert re.search(r"(_KEY|_URL) is not set|PortAudio", done.stderr), done.stderr
        case ["npx", "convex", *subcommand]:
            names = [word for word in subcommand if re.fullmatch(r"[a-z]+", word)]
            done = run(["npx", "--no-install", "convex", *names, "--help"])
            assert done.returncode == 0, done.stderr
        case ["npm", "run", script]:
            program, *arguments = json.loads((ROOT / "package.json").read_text())["scripts"][
                script
            ].split()
            assert program == "convex"
            done = run(["npx", "--no-install", "convex", arguments[0], "--help"])
            options = {word for word in arguments if word.startswith("--")}
            assert done.returncode == 0
            assert options <= set(re.findall(r"--[a-z-]+", done.stdout))
        case ["cp", source, _]:
            assert (ROOT / source).exists()
        case ["docker", "compose", "-f", file, subcommand, *arguments]:
            # No engine here: tests/unit/test_docker.py checks the files themselves.
            services = yaml.safe_load((ROOT / file).read_text())["services"]
            assert subcommand in {"run", "up"}
            assert {word for word in arguments if not word.startswith("-")} <= {*services, "keys"}
        case _:
            pytest.fail(f"README.md names {command!r}; say here how it is run")


def test_the_snippet_is_an_agent_that_runs() -> None:
    """`make check` holds its types; here it is imported, as a worker does."""
    module = ROOT / "tests/typing/readme_agent.py"
    assert [module.read_text()] == SNIPPETS
    imported = run([sys.executable, str(module)])
    assert imported.returncode == 0, imported.stderr


def test_there_is_something_to_test() -> None:
    assert len(COMMANDS) > 10
