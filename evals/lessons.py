"""The lessons that ship with Emma, as Convex would answer them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

__all__ = ["avatar", "lesson", "slugs"]

_DIRECTORY: Final = Path(__file__).resolve().parents[1] / "lessons"
# What the import of lessons knows beside the lesson itself.
_OF_THE_ROW: Final = ("slug", "course", "position", "avatar", "published")


@cache
def _files() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"lessons": [], "avatars": []}
    for path in sorted(_DIRECTORY.glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        for kind, rows in found.items():
            rows += content.get(kind, [])
    return found


def slugs() -> list[str]:
    """Their names."""
    return [each["slug"] for each in _files()["lessons"]]


def lesson(slug: str) -> dict[str, Any]:
    """One of them."""
    row = next(each for each in _files()["lessons"] if each["slug"] == slug)
    return {"lessonId": slug, **_without(row)}


def avatar(slug: str = "emma") -> dict[str, Any]:
    """Who teaches it."""
    return _without(next(each for each in _files()["avatars"] if each["slug"] == slug))


def _without(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _OF_THE_ROW}
