"""Every Python snippet of the plugin's README runs."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from livekit.plugins import convex

from livekit.plugins.convex import errors
from livekit.plugins.convex.testing import FakeConvex

ROOT = Path(__file__).parents[3]
README = ROOT / "plugins" / "livekit-plugins-convex" / "README.md"
TEXT = README.read_text(encoding="utf-8")
SOURCE = Path(errors.__file__).parent
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[0])
async def test_snippet_runs(snippet: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with FakeConvex() as fake:
        fake.on("students:tutoringContext", lambda args: {})
        fake.on("words:add", lambda args: None)
        fake.on("sessions:plan", lambda args: {})
        fake.on("analytics:track", lambda args: None)
        monkeypatch.setenv("CONVEX_OUTBOX_DIR", str(tmp_path / "outbox"))
        monkeypatch.setenv("CONVEX_URL", fake.url)
        monkeypatch.setenv("CONVEX_AGENT_KEY", convex.AgentKey.generate().pem())
        code = compile(snippet, README.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

        result = eval(code, {"convex": convex, "asyncio": __import__("asyncio")})
        if inspect.isawaitable(result):
            await result


@pytest.mark.parametrize("name", ["readme_agent", "readme_resume"])
def test_the_longer_snippets_are_type_checked(name: str) -> None:
    """`make check` holds the types of these files; the first is the root README's snippet too."""
    assert (ROOT / f"tests/typing/{name}.py").read_text() in SNIPPETS


def test_readme_has_its_snippets() -> None:
    assert len(SNIPPETS) == 8


def constants() -> Iterator[str]:
    """Every text in the plugin's code, those of f-strings in their pieces."""
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def loud_events() -> Iterator[str]:
    """The log events of the plugin that are warnings or errors."""
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if ast.unparse(node.func) not in ("logger.warning", "logger.error", "self._tell_once"):
                continue
            for part in ast.walk(node.args[0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def said_of_trouble() -> list[str]:
    """The first column of the troubleshooting list."""
    [table] = re.findall(r"^## Troubleshooting\n(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
    rows = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    return [text for row in rows for text in re.findall(r"`([^`]+)`", row)]


def test_each_text_of_the_troubleshooting_list_is_in_the_code() -> None:
    known = set(constants())

    assert [text for text in said_of_trouble() if not any(text in one for one in known)] == []


def test_each_loud_event_is_in_the_troubleshooting_list() -> None:
    events = set(loud_events())

    assert events - set(said_of_trouble()) == set()
    assert len(events) > 25


def test_every_option_of_the_recorder_is_told() -> None:
    options = inspect.signature(convex.SessionRecorder.attach).parameters
    told = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))

    assert set(options) - {"session", "ctx", "client"} <= told


def test_error_tree_is_the_one_in_the_code() -> None:
    drawn = (errors.__doc__ or "").split("\n\n")[1]

    assert drawn in TEXT
