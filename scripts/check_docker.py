"""Follow the steps of both Dockerfiles without a Docker engine: `make check-docker`.

Every path of the image is moved below a scratch folder; each step then does there what
it would do in the image. What needs to be root of a system of its own (making a user)
is named and left out. At the end what the image starts runs from what was installed.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parent.parent
IMAGE_PATHS = ("/app", "/opt/emma", "/var/lib/emma", "/home/emma")
NEEDS_A_SYSTEM_OF_ITS_OWN = ("useradd",)


class Image:
    """An image under construction, as a folder.

    The stages share it: what the first installs at a path, the second gets by
    `COPY --from` at the same path, which is where installed scripts look for it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workdir = root
        self.entry_point: list[str] = []
        self.command: list[str] = []
        # What the base image brings: an interpreter named `python`, and a shell.
        (root / "base").mkdir(parents=True)
        (root / "base/python").symlink_to(Path(sys.base_prefix) / "bin/python3")
        for name in ("node", "npm", "npx"):
            (root / "base" / name).symlink_to((ROOT / ".tools/bin" / name).resolve())
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if key.startswith(("PIP_", "SSL_", "REQUESTS_", "NODE_EXTRA")) or key == "HOME"
        }
        self.environment["PATH"] = f"{root / 'base'}:/usr/local/bin:/usr/bin:/bin"

    def moved(self, text: str) -> str:
        for path in IMAGE_PATHS:
            text = text.replace(path, f"{self.root}{path}")
        return text

    def place(self, path: str) -> Path:
        return Path(self.moved(path)) if path.startswith("/") else self.workdir / path

    def run(self, command: str) -> None:
        subprocess.run(
            ["bash", "-euc", self.moved(command)],
            cwd=self.workdir,
            env=self.environment,
            check=True,
        )

    def start(self) -> subprocess.CompletedProcess[str]:
        """What `docker run` starts, to its end."""
        return subprocess.run(
            ["bash", "-c", shlex.join([*self.entry_point, *self.command])],
            cwd=self.workdir,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


def main() -> None:
    for dockerfile, try_out in (("Dockerfile", try_worker), ("deploy.Dockerfile", try_deploy)):
        print(f"docker/{dockerfile}", flush=True)
        with tempfile.TemporaryDirectory(prefix="emma-image-") as folder:
            try_out(follow(ROOT / "docker" / dockerfile, Path(folder)))
    print("every step that needs no engine was followed, and what was installed runs")


def follow(dockerfile: Path, scratch: Path) -> Image:
    image = Image(scratch)
    for step in DockerfileParser(path=str(dockerfile)).structure:
        instruction, value = step["instruction"], step["value"]
        if instruction in {"COMMENT", "ARG"}:
            continue
        print(f"  {instruction} {value[:90]}", flush=True)
        match instruction:
            case "FROM":
                image.workdir = image.root
            case "RUN" if any(word in value for word in NEEDS_A_SYSTEM_OF_ITS_OWN):
                print("    left out: it makes a user, which needs a system of its own")
            case "RUN":
                image.run(value)
            case "WORKDIR":
                image.workdir = image.place(value)
                image.workdir.mkdir(parents=True, exist_ok=True)
            case "COPY" if "--from=" in value:
                source = value.split()[1]
                if not image.place(source).exists():
                    raise SystemExit(f"COPY --from: {source} was not made")
            case "COPY":
                *sources, target = shlex.split(value)
                for source in sources:
                    copy(ROOT / source, image.place(target), many=len(sources) > 1)
            case "ENV":
                for assignment in shlex.split(value):
                    name, _, text = assignment.partition("=")
                    text = text.replace("$PATH", image.environment["PATH"])
                    image.environment[name] = image.moved(text)
            case "ENTRYPOINT":
                image.entry_point = json.loads(value)
            case "CMD":
                image.command = json.loads(value)
            case "USER" | "VOLUME" | "HEALTHCHECK" | "STOPSIGNAL":
                pass
            case _:
                raise SystemExit(f"check_docker: {instruction} is not known here; teach it.")
    return image


def copy(source: Path, target: Path, *, many: bool) -> None:
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "node_modules")
        shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True)
        return
    if many or target.is_dir():
        target = target / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def try_worker(image: Image) -> None:
    """The worker starts from what was installed, and refuses an empty configuration."""
    image.run(shlex.join([*image.entry_point, "--help"]) + " >/dev/null")
    done = image.start()
    output = done.stdout + done.stderr
    if done.returncode != 2 or "CONVEX_URL" not in output or "Traceback" in output:
        raise SystemExit(f"the worker without settings ended with {done.returncode}:\n{output}")


def try_deploy(image: Image) -> None:
    """Convex's command is there, and the script names what it is not told."""
    image.run("npx --no-install convex --version")
    done = image.start()
    if done.returncode == 0 or "CONVEX_SELF_HOSTED_URL" not in done.stderr:
        raise SystemExit(f"deploy without settings ended with {done.returncode}:\n{done.stderr}")


if __name__ == "__main__":
    main()
