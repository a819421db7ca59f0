"""scripts/reset_deployment.py deletes what is for development and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEVELOPMENT = "dev:brave-otter-123"

NPX = """#!/bin/sh
echo "$CONVEX_DEPLOYMENT" "$@" > "{calls}"
for snapshot; do :; done
cp "$snapshot" "{calls}.zip"
"""


class Project:
    """A directory with the script and with an `npx` that only writes down what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/reset_deployment.py", root / "scripts")
        (root / "bin").mkdir()
        npx = root / "bin/npx"
        npx.write_text(NPX.format(calls=root / "calls"))
        npx.chmod(0o755)

    def reset(self, typed: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CONVEX_")}
        path = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [sys.executable, str(self.root / "scripts/reset_deployment.py")],
            env={**kept, "PATH": path, **variables},
            input=f"{typed}\n",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def call(self) -> str | None:
        """Deployment and arguments of the import that was run, if one was."""
        calls = self.root / "calls"
        return calls.read_text() if calls.exists() else None


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_development_deployment_is_emptied_once_its_name_is_typed(project: Project) -> None:
    done = project.reset("brave-otter-123", CONVEX_DEPLOYMENT=DEVELOPMENT)

    assert done.returncode == 0, done.stderr
    assert project.call is not None
    assert project.call.startswith(
        f"{DEVELOPMENT} --no-install convex import --replace-all --yes /"
    )
    with zipfile.ZipFile(project.root / "calls.zip") as snapshot:
        assert [len(snapshot.read(name)) for name in snapshot.namelist()] == [0]


def test_the_name_comes_from_where_npx_convex_has_it(project: Project) -> None:
    (project.root / ".env").write_text("CONVEX_DEPLOYMENT=prod:tame-otter-9\n")
    (project.root / ".env.local").write_text(
        "# Written by npx convex dev\nCONVEX_DEPLOYMENT=dev:brave-otter-123 # team: a, project: b\n"
    )

    assert project.reset("brave-otter-123").returncode == 0
    assert project.call is not None
    assert project.call.startswith(f"{DEVELOPMENT} ")


@pytest.mark.parametrize("typed", ["", "brave-otter-12", "yes", DEVELOPMENT])
def test_another_name_deletes_nothing(project: Project, typed: str) -> None:
    done = project.reset(typed, CONVEX_DEPLOYMENT=DEVELOPMENT)

    assert (done.returncode, project.call) == (2, None)
    assert "nothing was deleted" in done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"CONVEX_DEPLOYMENT": "prod:tame-otter-9"},
        {"CONVEX_DEPLOYMENT": "preview:tame-otter-9"},
        {"CONVEX_DEPLOYMENT": "tame-otter-9"},
        {"CONVEX_DEPLOYMENT": "dev:"},
        {"CONVEX_DEPLOYMENT": DEVELOPMENT, "CONVEX_DEPLOY_KEY": "prod:tame-otter-9|abc"},
        {"CONVEX_DEPLOYMENT": DEVELOPMENT, "CONVEX_DEPLOYMENT_TOKEN": "abc"},
        {"CONVEX_DEPLOYMENT": DEVELOPMENT, "CONVEX_SELF_HOSTED_URL": "http://127.0.0.1:3210"},
    ],
    ids=lambda variables: " ".join(variables.values()) or "none",
)
def test_what_may_be_production_is_refused_before_anything_is_asked(
    project: Project, variables: dict[str, str]
) -> None:
    done = project.reset("tame-otter-9", **variables)

    assert (done.returncode, project.call, done.stdout) == (2, None, "")
    assert len(done.stderr.splitlines()) == 1
    assert "|abc" not in done.stderr
