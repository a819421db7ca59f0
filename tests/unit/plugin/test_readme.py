"""Every Python snippet of the plugin's README runs."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from livekit.plugins import convex

from livekit.plugins.convex import errors
from livekit.plugins.convex.testing import FakeConvex

ROOT = Path(__file__).parents[3]
README = ROOT / "plugins" / "livekit-plugins-convex" / "README.md"
TEXT = README.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[0])
async def test_snippet_runs(snippet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeConvex() as fake:
        fake.on("students:tutoringContext", lambda args: {})
        fake.on("words:add", lambda args: None)
        fake.on("sessions:plan", lambda args: {})
        monkeypatch.setenv("CONVEX_URL", fake.url)
        monkeypatch.setenv("CONVEX_AGENT_KEY", convex.AgentKey.generate().pem())
        code = compile(snippet, README.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

        result = eval(code, {"convex": convex, "asyncio": __import__("asyncio")})
        if inspect.isawaitable(result):
            await result


def test_the_first_snippet_is_type_checked() -> None:
    """`make check` holds the types of this file; it is the root README's snippet too."""
    assert (ROOT / "tests/typing/readme_agent.py").read_text() == SNIPPETS[0]


def test_readme_has_its_snippets() -> None:
    assert len(SNIPPETS) == 5


def test_error_tree_is_the_one_in_the_code() -> None:
    drawn = (errors.__doc__ or "").split("\n\n")[1]

    assert drawn in TEXT
