"""The operator's way to a deployment: which one, with which key, and what is said when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from aiohttp import web

from emma_agent.school import Administrator, CallError, administrator
from emma_agent.settings import SettingsError

URL = "http://127.0.0.1:9"
NOWHERE = Path("/nonexistent/convex.env")


@pytest.mark.parametrize("name", ["CONVEX_URL", "NEXT_PUBLIC_CONVEX_URL", "CONVEX_SELF_HOSTED_URL"])
@pytest.mark.parametrize(
    "key", ["CONVEX_ADMIN_KEY", "CONVEX_SELF_HOSTED_ADMIN_KEY", "CONVEX_DEPLOY_KEY"]
)
def test_address_and_key_go_by_several_names(name: str, key: str) -> None:
    assert administrator({name: f"{URL}/", key: "x|y"}, local_env=NOWHERE).url == URL


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, ["CONVEX_URL is not set: ", "CONVEX_ADMIN_KEY is not set: "]),
        ({"CONVEX_URL": URL}, ["CONVEX_ADMIN_KEY is not set: "]),
        ({"CONVEX_ADMIN_KEY": "x|y"}, ["CONVEX_URL is not set: "]),
        (
            {"CONVEX_SELF_HOSTED_URL": "convex", "CONVEX_ADMIN_KEY": "x|y"},
            ["CONVEX_SELF_HOSTED_URL (convex) is not an absolute http(s) address"],
        ),
        (
            {"CONVEX_URL": URL, "CONVEX_SELF_HOSTED_URL": "http://b", "CONVEX_ADMIN_KEY": "x|y"},
            ["CONVEX_URL and CONVEX_SELF_HOSTED_URL name different deployments: "],
        ),
    ],
)
def test_settings_that_cannot_work_are_a_line_each(
    environ: Mapping[str, str], says: list[str]
) -> None:
    with pytest.raises(SettingsError) as refused:
        administrator(environ, local_env=NOWHERE)
    assert [
        line.startswith(begins) for line, begins in zip(refused.value.problems, says, strict=True)
    ] == [True] * len(says)


def test_without_any_setting_it_is_the_convex_local_of_dev(tmp_path: Path) -> None:
    written = tmp_path / "convex.env"
    written.write_text(f"CONVEX_SELF_HOSTED_URL={URL}\nCONVEX_SELF_HOSTED_ADMIN_KEY='a|b'\n")
    assert administrator({}, local_env=written).url == URL


def test_a_deployment_that_is_named_is_never_mixed_with_the_local_one(tmp_path: Path) -> None:
    """The key of one deployment is not sent to another."""
    written = tmp_path / "convex.env"
    written.write_text(f"CONVEX_SELF_HOSTED_URL={URL}\nCONVEX_SELF_HOSTED_ADMIN_KEY='a|b'\n")
    with pytest.raises(SettingsError, match="CONVEX_ADMIN_KEY is not set"):
        administrator({"CONVEX_URL": "https://school.example"}, local_env=written)


Handler = Callable[[web.Request], Awaitable[web.Response]]


async def failure_against(handler: Handler) -> CallError:
    """What a call of `lessons:importAll` fails with at a deployment that answers as `handler`."""
    server = web.Application()
    server.router.add_post("/api/mutation", handler)
    runner = web.AppRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    client = Administrator(f"http://{host}:{port}", "x|y")
    try:
        with pytest.raises(CallError) as failed:
            await asyncio.to_thread(client.mutation, "lessons:importAll", {}, timeout_s=0.5)
    finally:
        await runner.cleanup()
    return failed.value


def answer(body: Mapping[str, object], status: int = 200) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Convex x|y"
        return web.json_response(body, status=status)

    return handle


async def test_what_the_function_says_is_told_a_line_for_each_problem() -> None:
    data = {"code": "invalid_value", "message": "…", "problems": ["a: is missing", "b: is wrong"]}
    failed = await failure_against(
        answer({"status": "error", "errorMessage": "Server Error", "errorData": data})
    )
    assert failed.problems == ["a: is missing", "b: is wrong"]
    assert (failed.code, failed.data) == ("invalid_value", data)


async def test_a_function_that_is_not_there_means_deploy_first() -> None:
    message = "Could not find function for 'lessons:importAll'. Did you forget to run …?"
    failed = await failure_against(answer({"status": "error", "errorMessage": message}))
    [line] = failed.problems
    assert "has no function lessons:importAll: deploy this version's functions first" in line


async def test_a_key_that_is_refused_is_named_and_not_shown() -> None:
    body = {"code": "BadAdminKey", "message": "The provided admin key x|y was invalid"}
    [line] = (await failure_against(answer(body, 401))).problems
    assert "refuses the admin key" in line
    assert "x|y" not in line


async def test_what_is_not_convex_is_said_to_be_none() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=404, text="<html>")

    [line] = (await failure_against(handle)).problems
    assert line.endswith("answers 404, but not as Convex does: correct CONVEX_URL.")


async def test_a_deployment_that_hangs_is_not_waited_for() -> None:
    async def handle(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    [line] = (await failure_against(handle)).problems
    assert "gave no answer in 0.5 s" in line


def test_a_deployment_that_is_not_there_is_one_line() -> None:
    with pytest.raises(CallError) as failed:
        Administrator(URL, "x|y").mutation("lessons:importAll")
    [line] = failed.value.problems
    assert line.startswith(f"{URL} cannot be reached (ConnectionError): ")
