"""What is committed says nothing of one machine, and pins what it names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON_LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


@pytest.mark.parametrize("lock", PYTHON_LOCKS, ids=lambda path: path.name)
def test_python_locks_name_no_index_and_pin_every_package_by_hash(lock: Path) -> None:
    text = lock.read_text()
    packages = re.findall(r"^[A-Za-z0-9._-]+(?:\[[^]]*\])?==", text, re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text.strip())

    assert not re.search(r"https?://|index-url|find-links", text)
    assert len(entries) == len(packages)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_npm_lock_names_no_registry() -> None:
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    links = {name for name, entry in packages.items() if entry.get("link")}
    resolved = {name for name, entry in packages.items() if "resolved" in entry}

    assert resolved <= links
    assert len(packages) > len(links)
