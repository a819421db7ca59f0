"""Wheel and source distribution, installed into an empty environment beside another plugin."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from livekit.plugins import convex

ROOT = Path(__file__).parents[3]
PLUGIN = ROOT / "plugins" / "livekit-plugins-convex"
PACKAGE = PLUGIN / "livekit" / "plugins" / "convex"
NEIGHBOUR = "livekit-plugins-openai"
NAME = f"livekit_plugins_convex-{convex.__version__}"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(source: Path, target: str, into: Path) -> Path:
    """Build with the pinned backend: no front end, no registry."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", into, cwd=source)
    [built] = [path for path in into.iterdir() if path.name.startswith(NAME)]
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(PLUGIN, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module", params=["the tree", "the source distribution"])
def wheel(
    request: pytest.FixtureRequest, sdist: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = PLUGIN
    if request.param != "the tree":
        with tarfile.open(sdist) as archive:
            # Python has the filter since 3.11.4; what is unpacked was made here a moment ago.
            safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(folder / "unpacked", **safely)
        source = folder / "unpacked" / NAME
    return build(source, "wheel", folder / "built")


def package_files() -> set[str]:
    """What the package consists of, below the distribution's root."""
    return {
        path.relative_to(PLUGIN).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_source_distribution_holds_the_package_and_nothing_of_the_repository(
    sdist: Path,
) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}

    own = {"PKG-INFO", "LICENSE", "README.md", "pyproject.toml"}
    assert names - {".gitignore"} == package_files() | own


def test_the_wheel_holds_the_package_its_types_its_licence_and_the_functions(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        licence = archive.read(f"{NAME}.dist-info/licenses/LICENSE").decode()
        about = archive.read(f"{NAME}.dist-info/METADATA").decode()

    assert {name for name in names if not name.startswith(f"{NAME}.dist-info/")} == package_files()
    assert {
        "livekit/plugins/convex/py.typed",
        "livekit/plugins/convex/functions/sessions.ts",
    } <= names
    # Either would take the namespace from all other plugins.
    assert not {"livekit/__init__.py", "livekit/plugins/__init__.py"} & names
    assert licence == (ROOT / "LICENSE").read_text()
    assert f"\nVersion: {convex.__version__}\n" in about
    assert "\nLicense-Expression: Apache-2.0\n" in about
    assert "\nRequires-Dist: livekit-agents" in about


def wheel_of_installed(name: str, folder: Path) -> Path:
    """The wheel that an installed distribution came from, put together again."""
    installed = metadata.distribution(name)
    stem = f"{name.replace('-', '_')}-{installed.version}"
    path = folder / f"{stem}-py3-none-any.whl"
    record = f"{stem}.dist-info/RECORD"
    left_behind = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json", ".pyc")
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for file in installed.files or []:
            if file.name.endswith(left_behind) or ".." in file.parts:
                continue
            data = Path(str(file.locate())).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            archive.writestr(file.as_posix(), data)
            lines.append(f"{file.as_posix()},sha256={digest},{len(data)}")
        archive.writestr(record, "\n".join([*lines, f"{record},,", ""]))
    return path


def test_installed_beside_another_plugin_both_are_whole(wheel: Path, tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    there = tmp_path / "empty"
    run(uv, "venv", "--quiet", "--offline", "--python", sys.executable, there)
    python = there / "bin" / "python"
    [packages] = there.glob("lib/python*/site-packages")
    # What the two depend on is found where these tests run; its .pth files are not followed, so
    # the plugin's own tree is not.
    (packages / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    neighbour = wheel_of_installed(NEIGHBOUR, tmp_path)
    install = (uv, "pip", "install", "--quiet", "--offline", "--no-index", "--no-deps")
    run(*install, "--python", python, neighbour, wheel)

    said = run(
        python,
        "-c",
        "from livekit.plugins import convex, openai\n"
        "from livekit.agents import Plugin\n"
        "print(convex.__file__, openai.__file__, convex.__version__, sep='\\n')\n"
        "print(*(plugin.package for plugin in Plugin.registered_plugins))",
        cwd=tmp_path,
    ).splitlines()
    functions = run(python, "-m", "livekit.plugins.convex", cwd=tmp_path)

    assert said == [
        str(packages / "livekit" / "plugins" / "convex" / "__init__.py"),
        str(packages / "livekit" / "plugins" / "openai" / "__init__.py"),
        convex.__version__,
        "livekit.plugins.convex livekit.plugins.openai",
    ]
    assert functions == (PACKAGE / "functions" / "sessions.ts").read_text()
    shutil.rmtree(there)
