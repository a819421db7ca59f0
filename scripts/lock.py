"""Pin the Python packages anew: `make lock`.

The locks hold for every platform and name no package index: where packages come from
is the machine's own business.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = ["pyproject.toml", "plugins/livekit-plugins-convex/pyproject.toml"]
LOCKS: dict[str, list[str]] = {
    "dev": ["--extra", "demo", "--extra", "dev", *PROJECTS],
    # The worker's image: no tests, no demo, and the very versions that were tested.
    "worker": [*PROJECTS, "requirements/build.in", "-c", "requirements/dev.lock"],
    "node": ["requirements/node.in"],
    "go": ["requirements/go.in"],
}


def main() -> None:
    for name, sources in LOCKS.items():
        output = f"requirements/{name}.lock"
        subprocess.run(
            [
                *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
                *("--generate-hashes", "--no-header", "--no-annotate"),
                *("--no-emit-package", "emma-agent", "--no-emit-package", "livekit-plugins-convex"),
                *sources,
                *("--output-file", output),
            ],
            cwd=ROOT,
            check=True,
        )
        print(output)


if __name__ == "__main__":
    main()
