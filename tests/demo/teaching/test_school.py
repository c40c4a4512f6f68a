"""Visits: apart from one another, and gone when they end."""

import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest

from toolkit.demo.teaching.lesson import Backbone, Lesson
from toolkit.demo.teaching.limits import Limits
from toolkit.demo.teaching.school import School
from toolkit.errors import UserError


@pytest.fixture
def make_school(quick_lessons, tmp_path, monkeypatch):
    """Schools whose lessons end at once with the digits' bundle."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    schools = []

    def make(limits: Limits | None = None) -> School:
        schools.append(School(limits))
        return schools[-1]

    yield make
    for school in schools:
        school.shut()


@pytest.fixture
def fill(picture):
    """Give a visitor two classes of pictures."""

    def fill(visitor):
        for seed, own in enumerate(visitor.collection.as_document()["classes"]):
            visitor.collection.add(own["id"], "a.png", picture(seed))
        return visitor

    return fill


def _folders(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("toolkit-teach-*/visit-*"))


def test_what_was_taught_answers_and_is_taken_home(make_school, fill, seven, tmp_path, bundle):
    school = make_school()
    visitor = fill(school.get(school.open("page")))
    with pytest.raises(UserError, match="nothing is taught yet"):
        visitor.classify(seven.read_bytes())
    lesson = visitor.teach(Backbone(bundle))
    assert lesson.wait(20)
    answer = visitor.classify(seven.read_bytes())
    assert (answer.bundle, answer.predictions[0].label) == ("taught/1", "7")
    visitor.write_bundle(tmp_path / "taught.zip")
    with zipfile.ZipFile(tmp_path / "taught.zip") as zipped:
        assert "taught/1/assets.extra/manifest.json" in zipped.namelist()
        assert zipped.testzip() is None


def test_a_visit_leaves_nothing_and_does_not_disturb_others(make_school, fill, tmp_path, bundle):
    school = make_school()
    one, other = school.open("one"), school.open("other")
    assert _folders(tmp_path) == []  # of somebody who only looks
    lesson = fill(school.get(one)).teach(Backbone(bundle))
    fill(school.get(other))
    mine, theirs = _folders(tmp_path)
    assert [os.stat(folder).st_mode & 0o777 for folder in (mine, theirs, mine.parent)] == [0o700] * 3
    school.close("one")
    assert lesson.is_over
    assert _folders(tmp_path) in ([mine], [theirs])
    assert len(school.get(other).collection) == 2
    with pytest.raises(UserError, match="this visit has ended"):
        school.get(one)


def test_a_visit_that_nobody_ended_ends_by_itself(make_school, fill, tmp_path):
    school = make_school(Limits(idle_seconds=0.05))
    secret = school.open("page")
    fill(school.get(secret))
    time.sleep(0.1)
    school.open("another")
    with pytest.raises(UserError, match="this visit has ended"):
        school.get(secret)
    assert _folders(tmp_path) == []


def test_a_refused_lesson_costs_nothing_that_was_taught(make_school, fill, seven, bundle, monkeypatch):
    school = make_school(Limits(at_once=1, waiting=0))
    visitor, other = (fill(school.get(school.open(page))) for page in ("one", "other"))
    assert visitor.teach(Backbone(bundle)).wait(20)
    taught = visitor.bundle
    monkeypatch.setattr(Lesson, "_follow", lambda *_: None)  # the other's never ends
    other.teach(Backbone(bundle))
    with pytest.raises(UserError, match="others wait for a lesson"):
        visitor.teach(Backbone(bundle))
    assert visitor.bundle == taught
    assert visitor.classify(seven.read_bytes()).predictions[0].label == "7"


def test_a_visit_whose_network_is_in_use_goes_on(make_school, fill, bundle):
    school = make_school(Limits(idle_seconds=2))
    secret = school.open("page")
    visitor = fill(school.get(secret))
    assert visitor.teach(Backbone(bundle)).wait(20)
    for _ in range(6):
        time.sleep(0.5)
        assert school.network(visitor.bundle) is not None
        school.open("another")
    assert school.get(secret) is visitor


def test_a_full_disk_is_told(make_school, fill, tmp_path, bundle, monkeypatch):
    school = make_school()
    visitor = fill(school.get(school.open("page")))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match="no room left for another network"):
        visitor.teach(Backbone(bundle))
