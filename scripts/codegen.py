"""Make `convex/_generated` by the real `convex codegen`, against convex-local.

With `--check`, write nothing here: exit 1 and name the files if what is committed is not
what the command makes.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from emma_agent.convex_local import ConvexLocal, copy_functions

ROOT = Path(__file__).resolve().parent.parent
GENERATED = Path("convex/_generated")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory(prefix="emma-codegen-") as folder:
        # A copy, so that a check leaves the work tree as it is.
        project = Path(folder)
        copy_functions(project)
        generate(project)
        if check:
            return report(project)
        shutil.rmtree(ROOT / GENERATED, ignore_errors=True)
        shutil.copytree(project / GENERATED, ROOT / GENERATED)
    return 0


def generate(project: Path) -> None:
    with ConvexLocal.start(project=project, db=":memory:") as local:
        subprocess.run(
            [str(ROOT / "node_modules/.bin/convex"), "codegen"],
            cwd=project,
            env={
                **os.environ,
                "CONVEX_SELF_HOSTED_URL": local.url,
                "CONVEX_SELF_HOSTED_ADMIN_KEY": local.admin_key,
            },
            check=True,
            stdin=subprocess.DEVNULL,
        )


def report(project: Path) -> int:
    made = {path.name for path in (project / GENERATED).iterdir()}
    kept = {path.name for path in (ROOT / GENERATED).iterdir()}
    _, differing, odd = filecmp.cmpfiles(
        project / GENERATED, ROOT / GENERATED, sorted(made & kept), shallow=False
    )
    stale = sorted({*differing, *odd, *(made ^ kept)})
    for name in stale:
        print(f"{GENERATED / name} is not what `convex codegen` makes; run `make codegen`.")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
