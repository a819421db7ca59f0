"""Delete every row of a development deployment; its functions and variables stay.

    python scripts/reset_deployment.py

Refuses whatever is not a cloud or local deployment for development, and asks for the deployment's
name to be typed. The deployment is the one that `npx convex` would take: CONVEX_DEPLOYMENT from
the environment, else from .env.local or .env.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# `npx convex` writes CONVEX_DEPLOYMENT as `<type>:<name>`; `prod` and `preview` are the others.
RESETTABLE = ("dev", "local", "anonymous")
# Each of these makes `npx convex` look elsewhere than at CONVEX_DEPLOYMENT, and none of them
# tells development from production.
ELSEWHERE = (
    "CONVEX_DEPLOY_KEY",
    "CONVEX_DEPLOYMENT_TOKEN",
    "CONVEX_SELF_HOSTED_URL",
    "CONVEX_SELF_HOSTED_ADMIN_KEY",
)


class Refusal(Exception):
    """Nothing was deleted; the message says why, and what to do."""


def main() -> int:
    kind, name = development_deployment(variables(os.environ, ROOT))
    print(f"Every row of the development deployment {name} will be deleted, for good.")
    try:
        typed = input("Type its name to go on: ").strip()
    except EOFError:
        typed = ""
    if typed != name:
        raise Refusal("That is not its name; nothing was deleted.")
    with tempfile.TemporaryDirectory(prefix="emma-reset-") as folder:
        snapshot = empty_snapshot(Path(folder))
        # Tables of the schema that the snapshot does not have are cleared too.
        command = ["npx", "--no-install", "convex", "import", "--replace-all", "--yes"]
        done = subprocess.run(
            [*command, str(snapshot)],
            cwd=ROOT,
            # What was checked, whatever the files say by now.
            env={**os.environ, "CONVEX_DEPLOYMENT": f"{kind}:{name}"},
            check=False,
        )
    return done.returncode


def development_deployment(settings: Mapping[str, str]) -> tuple[str, str]:
    """Type and name of the deployment that may be reset.

    Raises:
        Refusal: there is none, or it may be anything but a deployment for development.
    """
    for name in ELSEWHERE:
        if settings.get(name):
            raise Refusal(
                f"{name} is set, and does not say that its deployment is for development: "
                "unset it, or delete that deployment's data by hand (docs/operations.md)."
            )
    kind, colon, name = settings.get("CONVEX_DEPLOYMENT", "").partition(":")
    # `npx convex` itself leaves a comment behind the name.
    name = name.split("#")[0].strip()
    if not kind:
        raise Refusal("CONVEX_DEPLOYMENT is not set: run `npm run convex:dev` once, which sets it.")
    if not colon or not name or kind not in RESETTABLE:
        raise Refusal(
            "CONVEX_DEPLOYMENT names no deployment for development "
            f"({', '.join(f'{known}:…' for known in RESETTABLE)}); nothing was deleted."
        )
    return kind, name


def variables(environ: Mapping[str, str], directory: Path) -> dict[str, str]:
    """As `npx convex` sees them: the environment wins over .env.local, which wins over .env."""
    found: dict[str, str] = {}
    for file in (directory / ".env", directory / ".env.local"):
        if file.exists():
            found |= dict(assignment(line) for line in file.read_text().splitlines() if "=" in line)
    return found | dict(environ)


def assignment(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name.strip().removeprefix("export ").strip(), value.strip().strip("\"'")


def empty_snapshot(directory: Path) -> Path:
    path = directory / "empty.zip"
    with zipfile.ZipFile(path, "w") as snapshot:
        snapshot.writestr("messages/documents.jsonl", "")
    return path


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(2)
