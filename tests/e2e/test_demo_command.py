"""`make demo` and the program behind it as processes: how they end, what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "emma_agent.demo")
MARK = "DEMO_TEST_RUN"
# Settings of the machine the tests run on would choose another plan.
FOREIGN = ("LIVEKIT_", "CONVEX_", "NEXT_PUBLIC_CONVEX_", "OPENAI_", "EMMA_")


class Demo:
    """One run, and every process that carries its mark."""

    def __init__(self, temporary: Path, *, command: Sequence[str] = PROGRAM, **env: str) -> None:
        self.temporary = temporary
        self.mark = uuid.uuid4().hex
        base = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**base, **env, MARK: self.mark, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.shown: list[str] = []

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.shown.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} never came:\n{''.join(self.shown)}")

    def wait(self, timeout_s: float) -> int:
        assert self.process.stdout is not None
        code = self.process.wait(timeout_s)
        self.shown += self.process.stdout.readlines()
        return code

    def survivors(self) -> list[str]:
        """Processes of this run that live; zombies have ended."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    found.append(" ".join(process.cmdline())[:200])
            except psutil.Error:
                continue
        return found


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def demo(temporary: Path) -> Iterator[Demo]:
    run = Demo(temporary)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()
        assert run.process.stdout is not None
        run.process.stdout.close()


def test_make_demo_ends_with_its_table(tmp_path: Path) -> None:
    """As a new user runs it."""
    run = Demo(tmp_path, command=("make", "demo"))

    code, shown = run.wait(150), "".join(run.shown)

    assert code == 0, shown
    table = [line.split() for line in shown.splitlines() if line.startswith("│")]
    speakers = [cells[1] for cells in table if cells[1] in ("Emma", "Student")]
    assert speakers == ["Emma", "Student", "Emma", "Student", "Emma"]
    assert "Each thing once and in order; 5 rows were there while the lesson still ran" in shown
    assert "What to try next" in shown
    assert run.survivors() == []


@pytest.mark.parametrize(
    "moment",
    [
        "Emma teaches",
        "convex-local, with a student",
        # The first row: Emma has just greeted, the student is about to speak.
        "Emma    Hello",
    ],
)
def test_ctrl_c_leaves_nothing_behind(demo: Demo, moment: str) -> None:
    demo.read_until(moment)

    demo.process.send_signal(signal.SIGINT)

    assert demo.wait(60) == 130
    assert demo.survivors() == []
    assert list(demo.temporary.glob("emma-demo-*")) == []
    assert "Traceback" not in "".join(demo.shown)


def test_impatience_leaves_nothing_behind(demo: Demo) -> None:
    """Ctrl-C again and again, as people do."""
    demo.read_until("worker (python -m emma_agent")

    for _ in range(3):
        demo.process.send_signal(signal.SIGINT)

    assert demo.wait(60) == 130
    assert demo.survivors() == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_killed_it_leaves_no_process(demo: Demo) -> None:
    """No handler runs; the children notice by themselves."""
    demo.read_until("worker (python -m emma_agent")
    family = psutil.Process(demo.process.pid).children(recursive=True)

    demo.process.kill()
    demo.wait(10)

    _, alive = psutil.wait_procs(family, timeout=20)
    assert [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert demo.survivors() == []


def test_a_deployment_without_keys_is_one_sentence(tmp_path: Path) -> None:
    run = Demo(tmp_path, CONVEX_URL="http://127.0.0.1:9")

    assert run.wait(60) == 1
    assert "CONVEX_URL is set, so the demo also needs CONVEX_ADMIN_KEY" in "".join(run.shown)
    assert "Traceback" not in "".join(run.shown)
