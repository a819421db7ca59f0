"""What the school's operator does on the command line: calls with the deployment's admin key.

The key is an operator's and never a worker's: it may do everything. One function opens the way,
for every command that needs it:

    administrator(environ: Mapping[str, str] = os.environ, *, local_env: Path = LOCAL_ENV)
        -> Administrator                      raises SettingsError (exit code 2)

    Administrator.url: str
    Administrator.query(name: str, args: Mapping[str, object] | None = None, *, timeout_s=60.0)
    Administrator.mutation(...)               the same; both return the answer as Convex's values
        raises CallError (exit code 1): `problems` has one line each, remedy included;
        its `code` and `data` are those of the `ConvexError` that the function threw, else None

With it: `import_lessons` and `seed_demo`, which return the lines to print.

The command line turns both errors into lines on stderr and an exit code; commands just call.
The official synchronous client does the work: blocking is right here, where nobody is speaking.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, Final, cast

import requests
from convex.http_client import ConvexExecutionError, ConvexHttpClient
from convex.values import CoercibleToConvexValue

from convex import ConvexError, ConvexValue
from emma_agent.convex_local import ROOT
from emma_agent.settings import SettingsError
from livekit.plugins.convex import ConfigurationError
from livekit.plugins.convex.transport import check_url

__all__ = [
    "LOCAL_ENV",
    "Administrator",
    "CallError",
    "administrator",
    "import_lessons",
    "seed_demo",
    "shipped_lessons",
]

LOCAL_ENV: Final = ROOT / ".emma" / "convex.env"
"""Where `dev` writes the address and the admin key of the convex-local that it starts."""

_URLS: Final = ("CONVEX_URL", "NEXT_PUBLIC_CONVEX_URL", "CONVEX_SELF_HOSTED_URL")
_KEYS: Final = ("CONVEX_ADMIN_KEY", "CONVEX_SELF_HOSTED_ADMIN_KEY", "CONVEX_DEPLOY_KEY")
_DEPLOY: Final = "deploy this version's functions first (`npm run convex:deploy`)"


class CallError(RuntimeError):
    """A call of the operator's failed. `problems` has one line for each thing that is wrong.

    `code` and `data` are what the function threw as `ConvexError`; None if it threw none.
    """

    def __init__(
        self, problems: list[str], *, code: str | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.code = code
        self.data = data


class Administrator:
    """A deployment, called with its admin key: internal functions too. Not for a worker."""

    def __init__(self, url: str, admin_key: str) -> None:
        """Use `administrator`."""
        self.url = url
        self._client = ConvexHttpClient(url)
        self._client.set_admin_auth(admin_key)

    def query(
        self,
        name: str,
        args: Mapping[str, object] | None = None,
        *,
        timeout_s: float = 60.0,
    ) -> ConvexValue:
        """Run a query, as `lessons:get`; return what it answers.

        Raises:
            CallError: no answer within `timeout_s`, or a refusal.
        """
        return self._call(self._client.query, name, args, timeout_s)

    def mutation(
        self,
        name: str,
        args: Mapping[str, object] | None = None,
        *,
        timeout_s: float = 60.0,
    ) -> ConvexValue:
        """Run a mutation; return what it answers.

        Raises:
            CallError: a refusal, or no answer within `timeout_s`: then the mutation may have
                been carried out.
        """
        return self._call(self._client.mutation, name, args, timeout_s)

    def _call(
        self,
        call: Callable[[str, dict[str, CoercibleToConvexValue] | None], ConvexValue],
        name: str,
        args: Mapping[str, object] | None,
        timeout_s: float,
    ) -> ConvexValue:
        # The client waits without end. Its thread is left behind when the time is up: the
        # command that asked ends then, and a daemon thread with it.
        answer: Future[ConvexValue] = Future()
        given = cast("dict[str, CoercibleToConvexValue]", dict(args or {}))

        def ask() -> None:
            try:
                answer.set_result(call(name, given))
            except BaseException as error:  # noqa: BLE001 - it is the caller's, below
                answer.set_exception(error)

        threading.Thread(target=ask, name=f"call-{name}", daemon=True).start()
        try:
            error = answer.exception(timeout_s)
        except FutureTimeoutError:
            raise CallError(
                [
                    f"{name}: {self.url} gave no answer in {timeout_s:g} s; see that it is well, "
                    "then run the command again: it may be repeated."
                ]
            ) from None
        if error is None:
            return answer.result()
        raise self._explained(name, error) from None

    def _explained(self, name: str, error: BaseException) -> CallError:
        match error:
            case ConvexError(data=dict(data)):
                code = data.get("code")
                named = data.get("problems")
                problems = [str(one) for one in named] if isinstance(named, list) else []
                return CallError(
                    problems or [f"{name}: {data.get('message') or code or 'refused'}"],
                    code=code if isinstance(code, str) else None,
                    data=data,
                )
            case ConvexError(data=data):
                return CallError([f"{name}: {data}"])
            case ConvexExecutionError() if re.search("Could not find .*function", str(error)):
                return CallError([f"{self.url} has no function {name}: {_DEPLOY}."])
            case ConvexExecutionError():
                return CallError([f"{name} failed: {_first_line(error)}"])
            case requests.HTTPError():
                status = error.response.status_code
                return CallError(
                    [f"{self.url} answers {status}, but not as Convex does: correct CONVEX_URL."]
                )
            case requests.RequestException():
                return CallError(
                    [
                        f"{self.url} cannot be reached ({type(error).__name__}): see that the "
                        "deployment runs, or correct CONVEX_URL."
                    ]
                )
            case _ if re.match("40[13] ", str(error)):
                return CallError(
                    [
                        f"{self.url} refuses the admin key: give this deployment's own as "
                        "CONVEX_ADMIN_KEY."
                    ]
                )
            case _:
                return CallError([f"{name}: {self.url} says: {_first_line(error)}"])


def administrator(
    environ: Mapping[str, str] = os.environ, *, local_env: Path = LOCAL_ENV
) -> Administrator:
    """The deployment that the environment names, called with its admin key. Asks nothing yet.

    The address is CONVEX_URL (or CONVEX_SELF_HOSTED_URL), the key CONVEX_ADMIN_KEY (or
    CONVEX_SELF_HOSTED_ADMIN_KEY, or CONVEX_DEPLOY_KEY). With none of them set it is the
    convex-local that `dev` started, as with the other commands for development.

    Raises:
        SettingsError: one line for each variable that is missing or cannot be right.
    """
    given = {name: environ[name].strip() for name in (*_URLS, *_KEYS) if environ.get(name)}
    if not given:
        given = _read_local(local_env)
    urls = {name: given[name].rstrip("/") for name in _URLS if name in given}
    keys = [given[name] for name in _KEYS if name in given]
    problems: list[str] = []
    url = next(iter(urls.values()), "")
    if len(set(urls.values())) > 1:
        problems.append(
            f"{' and '.join(urls)} name different deployments: give both the same value, "
            "or unset one of them."
        )
    elif not urls:
        problems.append(
            "CONVEX_URL is not set: give the address of your Convex deployment; "
            "`python -m emma_agent dev` starts one on this machine."
        )
    else:
        try:
            url = check_url(url)
        except ConfigurationError as error:
            problems.append(f"{next(iter(urls))} {str(error).removeprefix('CONVEX_URL ')}.")
    if not keys:
        problems.append(
            "CONVEX_ADMIN_KEY is not set: give the deployment's admin key (self-hosted) or a "
            "deploy key (Convex cloud, in the deployment's settings). It is yours, not the worker's."
        )
    if problems:
        raise SettingsError(problems)
    return Administrator(url, keys[0])


def shipped_lessons(root: Path = ROOT) -> list[Path]:
    """The files of the lessons that come with a checkout of the project.

    Raises:
        SettingsError: this is no checkout.
    """
    found = sorted((root / "lessons").glob("*.json"))
    if not found:
        raise SettingsError(
            [f"There are no lessons in {root / 'lessons'}: name the files that are to be imported."]
        )
    return found


def import_lessons(school: Administrator, files: Iterable[Path]) -> list[str]:
    """Write the lessons, courses and avatars of the files, all of them or nothing.

    Returns:
        A line for each lesson, with its id, then one for the whole.

    Raises:
        CallError: a line for each thing that is wrong, by file and path.
    """
    documents = [{"name": path.name, "text": _read_text(path)} for path in files]
    match school.mutation("lessons:importAll", {"files": documents}):
        case {"avatars": list(avatars), "courses": list(courses), "lessons": list(lessons)}:
            named = (lesson for lesson in lessons if isinstance(lesson, dict))
            told = [f"{lesson['slug']!s}: {lesson['lessonId']!s}" for lesson in named]
            counts = f"lessons {len(lessons)}, courses {len(courses)}, avatars {len(avatars)}"
            return [*told, f"Imported into {school.url}: {counts}"]
        case _:
            raise _another_answer(school, "lessons:importAll")


def seed_demo(school: Administrator) -> list[str]:
    """Make the demo's student and lesson, or bring them back to what they were.

    Returns:
        What to dispatch a job with, as its metadata.
    """
    match school.mutation("seed:demo"):
        case {"studentId": str(student_id), "lessonId": str(lesson_id)}:
            metadata = json.dumps({"student_id": student_id, "lesson_id": lesson_id})
            return [
                f"{school.url} has the demo's student and lesson. A room whose dispatch has this "
                "metadata is theirs:",
                metadata,
            ]
        case _:
            raise _another_answer(school, "seed:demo")


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CallError([f"{path.name}: is not UTF-8 text (byte {error.start})."]) from None
    except OSError as error:
        raise CallError([f"{path.name}: cannot be read ({error.strerror})."]) from None


def _another_answer(school: Administrator, name: str) -> CallError:
    return CallError(
        [f"{school.url}: {name} gave another answer than this version knows: {_DEPLOY}."]
    )


def _read_local(path: Path) -> dict[str, str]:
    """What `dev` wrote: lines of a name and a value, perhaps in quotes."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs if value}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
