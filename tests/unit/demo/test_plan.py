"""What the environment chooses, and what of it the children see."""

from __future__ import annotations

import pytest

from emma_agent.demo.plan import Plan, StageError, clean_environment

DEPLOYMENT = {
    "CONVEX_URL": "https://happy-animal-123.convex.cloud",
    "CONVEX_ADMIN_KEY": "admin",
    "CONVEX_AGENT_KEY": "pem",
}


def test_with_nothing_set_all_is_offline_and_local() -> None:
    assert Plan.from_environment({"OPENAI_API_KEY": "", "CONVEX_URL": ""}) == Plan()


def test_an_openai_key_replaces_the_offline_speech() -> None:
    plan = Plan.from_environment({"OPENAI_API_KEY": "k", "EMMA_LLM_MODEL": "m", "HOME": "/"})

    assert plan.openai == {"OPENAI_API_KEY": "k", "EMMA_LLM_MODEL": "m"}


def test_a_deployment_is_used_and_its_admin_key_stays_with_the_stage() -> None:
    plan = Plan.from_environment(DEPLOYMENT)

    assert plan.convex is not None
    assert plan.convex.admin_key == "admin"
    assert plan.convex.environment == {
        "CONVEX_URL": DEPLOYMENT["CONVEX_URL"],
        "CONVEX_AGENT_KEY": "pem",
    }


@pytest.mark.parametrize("name", ["CONVEX_ADMIN_KEY", "CONVEX_AGENT_KEY"])
def test_a_deployment_without_its_keys_is_refused_by_name(name: str) -> None:
    environ = {key: value for key, value in DEPLOYMENT.items() if key != name}

    with pytest.raises(StageError, match=name):
        Plan.from_environment(environ)


def test_settings_of_another_run_do_not_leak_into_the_children() -> None:
    environ = {**DEPLOYMENT, "LIVEKIT_URL": "ws://x", "EMMA_OUTBOX_DIR": "/x", "PATH": "/bin"}

    cleaned = clean_environment({**environ, "no_proxy": "example.org"})

    assert set(cleaned) == {"PATH", "NO_PROXY", "no_proxy", "PYTHONUNBUFFERED"}
    assert cleaned["no_proxy"] == "example.org,127.0.0.1,localhost"
