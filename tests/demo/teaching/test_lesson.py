"""Lessons in processes of their own: followed, stopped at once, and one after another."""

import time
from pathlib import Path

import pytest

from toolkit.demo.teaching import lesson as lessons
from toolkit.demo.teaching.lesson import Backbone, Lesson, Line, Order
from toolkit.demo.teaching.limits import Limits
from toolkit.errors import UserError

# Stands for the worker: as quick as Python starts.
_SCRIPT = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
how = json.loads((folder / "lesson.json").read_text())["table"]
tell = lambda **event: print(json.dumps(event), flush=True)
tell(event="begin", number=1, label="reading pictures", total=4)
tell(event="update", number=1, done=3, total=None)
if how == "sleep":
    child = os.fork()
    if child:
        (folder / "part").write_text(str(child))
        (folder / "part").rename(folder / "child")
    time.sleep(60)
tell(event="end", number=1)
tell(event="said", text="almost done")
tell(event="judged", accuracy=0.9)
if how == "fail":
    tell(event="failed", message="a class has no pictures")
    sys.exit(1)
if how == "crash":
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def make_lesson(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "WORKER", ("-c", _SCRIPT))
    count = iter(range(100))

    def make(how: str, limits: Limits | None = None) -> Lesson:
        folder = tmp_path / f"lesson-{next(count)}"
        return Lesson(Order(Path(how), Backbone(Path("backbone"))), folder, limits or Limits())

    return make


def _wait(is_so, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_lesson_tells_what_it_does_and_what_came_of_it(make_lesson):
    lesson = make_lesson("quick")
    Line(Limits()).join(lesson)
    _wait(lambda: lesson.is_over)
    assert (lesson.phase, lesson.problem) == ("done", "")
    assert lesson.judged == {"accuracy": 0.9}
    assert lesson.said == ["almost done"]
    (step,) = lesson.steps
    assert (step.label, step.done, step.total) == ("reading pictures", 3, 4)
    assert step.seconds >= 0
    assert oct(lesson.folder.stat().st_mode)[-3:] == "700"


@pytest.mark.parametrize(("how", "problem"), [("fail", "a class has no pictures"), ("crash", "broke off")])
def test_a_lesson_that_fails_says_why_and_leaves_nothing(make_lesson, how, problem):
    lesson = make_lesson(how)
    Line(Limits()).join(lesson)
    _wait(lambda: lesson.is_over)
    assert lesson.phase == "failed"
    assert problem in lesson.problem
    assert lesson.wait(5)
    assert not lesson.folder.exists()


def test_a_stopped_lesson_is_gone_with_all_it_started_within_two_seconds(make_lesson):
    lesson, line = make_lesson("sleep"), Line(Limits())
    line.join(lesson)
    _wait((lesson.folder / "child").exists)
    child = int((lesson.folder / "child").read_text())
    begun = time.monotonic()
    line.leave(lesson)
    assert lesson.phase == "stopped"
    assert lesson.wait(2)
    _wait(lambda: not _is_running(child), 2)
    assert time.monotonic() - begun < 2
    assert not lesson.folder.exists()


def test_a_lesson_that_takes_too_long_is_ended(make_lesson):
    lesson = make_lesson("sleep", Limits(seconds=0.3))
    Line(Limits()).join(lesson)
    _wait(lambda: lesson.is_over)
    assert lesson.problem == "not done after 0 seconds; take fewer pictures"


def test_others_wait_in_line_are_told_their_place_and_refused_where_it_is_long(make_lesson):
    line = Line(Limits(at_once=1, waiting=2))
    first, second, third = (make_lesson(how) for how in ("sleep", "quick", "quick"))
    for lesson in (first, second, third):
        line.join(lesson)
    assert [line.ahead_of(lesson) for lesson in (first, second, third)] == [0, 1, 2]
    with pytest.raises(UserError, match="2 others wait for a lesson"):
        line.join(make_lesson("quick"))
    line.leave(second)
    assert line.ahead_of(third) == 1
    line.leave(first)
    _wait(lambda: third.is_over)
    assert (second.phase, third.phase) == ("stopped", "done")


def test_nothing_of_the_owners_cache_is_touched(make_lesson, monkeypatch):
    script = """import json, os
for name in ("TOOLKIT_CACHE", "TMPDIR"): print(json.dumps({"event": "said", "text": os.environ[name]}))"""
    monkeypatch.setattr(lessons, "WORKER", ("-c", script))
    lesson = make_lesson("")
    Line(Limits()).join(lesson)
    _wait(lambda: lesson.is_over)
    assert [Path(place).parent for place in lesson.said] == [lesson.folder, lesson.folder]
