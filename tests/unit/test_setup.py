"""scripts/setup.py: what is done once, and what is said when something cannot be had."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module, with every folder of its own below `tmp_path`."""
    spec = importlib.util.spec_from_file_location("emma_setup", ROOT / "scripts/setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folders = {"ROOT": "", "VENV": ".venv", "TOOLS": ".tools", "BIN": ".tools/bin"}
    for name, folder in (folders | {"STAMPS": ".tools/stamps"}).items():
        monkeypatch.setattr(module, name, tmp_path / folder)
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    yield module


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_step_runs_again_only_when_its_sources_change(setup: ModuleType, tmp_path: Path) -> None:
    source, product, runs = tmp_path / "lock", tmp_path / "product", []

    def install() -> None:
        runs.append(1)
        product.touch()

    for content in ("one", "one", "two"):
        source.write_text(content)
        setup.step("Things", [source], install, product)
    assert len(runs) == 2

    product.unlink()
    setup.step("Things", [source], install, product)
    assert len(runs) == 3


def test_a_step_that_failed_is_tried_again(setup: ModuleType, tmp_path: Path) -> None:
    product = tmp_path / "product"
    product.touch()

    def fail() -> None:
        raise setup.SetupError("no")

    for _ in range(2):
        with pytest.raises(setup.SetupError):
            setup.step("Things", ["source"], fail, product)


def test_what_set_up_made_is_not_taken_for_the_machines_own(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(setup.BIN / "node")
    machine = program(tmp_path / "machine/node")
    path = [str(setup.BIN), str(setup.VENV / "bin"), str(machine.parent)]
    monkeypatch.setenv("PATH", os.pathsep.join(path))

    assert setup.find_outside("node") == str(machine)


def test_a_livekit_server_on_the_path_is_linked_and_not_built(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = program(tmp_path / "machine/livekit-server")
    monkeypatch.setenv("PATH", str(machine.parent))

    setup.install_livekit()

    assert (setup.BIN / "livekit-server").resolve() == machine


def test_a_livekit_server_that_cannot_be_built_is_one_line_with_the_remedy(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = program(tmp_path / "machine/go", "#!/bin/sh\necho 'no such module' >&2\nexit 1\n")
    monkeypatch.setenv("PATH", str(go.parent))

    with pytest.raises(setup.SetupError) as raised:
        setup.install_livekit()

    message = str(raised.value)
    assert "no such module" in message
    assert "Put a `livekit-server` on the PATH" in message
    assert "\n" not in message
    assert "no such module" in (setup.TOOLS / "setup-error.log").read_text()


def test_a_node_that_is_too_old_is_not_taken(setup: ModuleType, tmp_path: Path) -> None:
    assert not setup.node_will_do(str(program(tmp_path / "node", "#!/bin/sh\nexit 1\n")))
    assert setup.node_will_do(str(program(tmp_path / "newer", "#!/bin/sh\nexit 0\n")))


def test_an_old_python_is_told_what_to_do(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "MIN_PYTHON", (99, 0))
    monkeypatch.setattr(sys, "argv", ["setup.py"])

    with pytest.raises(setup.SetupError, match=r"make PYTHON=python3\.\d+"):
        setup.main()
