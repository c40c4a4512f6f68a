"""Teaching as a visitor does it, in a real Chromium."""

import io
import re
import time
import zipfile

import pytest
from PIL import Image

from toolkit.demo.teaching import lesson as lessons

pytestmark = pytest.mark.browser

DROP = """([selector, named]) => {
  const data = new DataTransfer();
  for (const [name, bytes] of Object.entries(named)) data.items.add(new File([new Uint8Array(bytes)], name));
  const place = document.querySelector(selector);
  for (const type of ["dragenter", "dragover", "drop"])
    place.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


@pytest.fixture
def visit(visitor):
    """A visitor's page on the tab."""
    visitor.get_by_role("tab", name="Teach", exact=True).click()
    visitor.wait_for_selector(".tt-class")
    return visitor


def _count(page, number: int) -> None:
    page.wait_for_function("number => document.querySelectorAll('.tt-shelf .tt-thumb').length === number", arg=number)


@pytest.mark.slow
def test_a_zip_is_taught_tried_and_taken_home(visit, quick_lessons, digits_zip, bad_files, seven, tmp_path):
    assert visit.get_by_role("button", name="Teach", exact=True).is_disabled()
    visit.set_input_files("[data-zip]", str(bad_files["text"]))
    visit.wait_for_selector(".tt-problems p:has-text('letter.jpg: not a zip file')")
    visit.set_input_files("[data-zip]", str(digits_zip))
    _count(visit, 60)
    assert visit.locator(".tt-problems p").count() == 0
    assert [field.input_value() for field in visit.locator(".tt-name").all()] == ["3", "5", "8"]
    visit.get_by_role("button", name="Teach", exact=True).click()
    visit.wait_for_selector(".tt-lesson[data-state=done]")
    assert re.search(r"75 %.*± 10", visit.inner_text(".tt-score"), re.DOTALL)
    assert visit.locator(".tt-confusion tbody tr").count() == 3
    visit.get_by_role("button", name="it is 8").click()  # the mistake moves to the class that it was called
    visit.wait_for_function("document.querySelectorAll('.tt-class')[2].querySelectorAll('.tt-thumb').length === 21")
    visit.set_input_files("[data-try]", str(seven))
    visit.wait_for_selector(".tt-answer .tk-label:text-is('7')")
    with visit.expect_download() as download:
        visit.get_by_role("button", name="the network").click()
    download.value.save_as(tmp_path / "taught.zip")
    assert zipfile.ZipFile(tmp_path / "taught.zip").testzip() is None


@pytest.mark.slow
def test_what_was_taught_answers_on_the_other_tabs_of_its_teacher_alone(
    browser, visit, served, quick_lessons, digits_zip, seven
):
    visit.set_input_files("[data-zip]", str(digits_zip))
    _count(visit, 60)
    visit.get_by_role("button", name="Teach", exact=True).click()
    visit.wait_for_selector(".tt-lesson[data-state=done]")
    visit.get_by_role("button", name="in Classify").click()
    visit.wait_for_function("document.querySelector('#bundle input').value.startsWith('yours/1: ')")
    visit.set_input_files("#picture input[type=file]", str(seven))
    visit.wait_for_selector("#answer .tk-facts:has-text('classify, yours/1 on ')")
    assert visit.inner_text("#answer .tk-label") == "7"
    visit.get_by_role("tab", name="Teach", exact=True).click()
    visit.get_by_role("button", name="in Compare").click()
    visit.wait_for_selector(".tk-compare[data-state=done] caption:has-text('yours/1')")
    visit.get_by_role("tab", name="Classify", exact=True).click()
    visit.click("#bundle input")
    assert visit.get_by_role("option").all_inner_texts()[1:] == ["digits/2", "digits/1"]
    other = browser.new_page()
    other.goto(served)
    other.wait_for_selector(".tk-example")
    other.click("#bundle input")
    assert [name.strip("✓ \n") for name in other.get_by_role("option").all_inner_texts()] == ["digits/2", "digits/1"]
    other.close()


@pytest.mark.slow
def test_pictures_are_dropped_on_classes_named_and_taken_out(visit, picture, bad_files):
    visit.locator(".tt-name").first.fill("cats")
    visit.keyboard.press("Enter")
    large = io.BytesIO()
    Image.new("RGB", (3000, 2000), "red").save(large, "JPEG")
    named = {
        "1.png": list(picture(1)),
        "big.jpg": list(large.getvalue()),
        "bad.jpg": list(bad_files["text"].read_bytes()),
    }
    visit.evaluate(DROP, [".tt-class:nth-child(1)", named])
    visit.wait_for_selector(".tt-problems p:has-text('bad.jpg: not a picture in a supported format')")
    visit.evaluate(DROP, [".tt-class:nth-child(2)", {"2.png": list(picture(2))}])
    _count(visit, 3)
    visit.wait_for_selector(".tt-findings:has-text('Few pictures to learn from: cats (2)')")
    visit.locator(".tt-class").first.locator(".tt-thumb").first.click()
    _count(visit, 2)
    visit.get_by_role("button", name="Remove cats").click()
    _count(visit, 1)
    visit.get_by_role("button", name="+ Add a class").click()
    visit.wait_for_function("document.querySelectorAll('.tt-class').length === 2")
    visit.evaluate(DROP, [".tt-lead", {"3.png": list(picture(3))}])
    visit.wait_for_selector(".tt-problems p:has-text('Drop pictures on the class that they are of.')")


@pytest.mark.slow
def test_a_folder_of_class_folders_is_chosen_and_what_was_learned_tried_live(
    visit, quick_lessons, make_folder, tmp_path
):
    make_folder(tmp_path / "pets", {"cats": 2, "dogs": 3})
    (tmp_path / "pets" / "notes.txt").write_text("no picture")
    visit.set_input_files("[data-folder]", str(tmp_path / "pets"))
    _count(visit, 5)
    assert sorted(field.input_value() for field in visit.locator(".tt-name").all()) == ["cats", "dogs"]
    visit.get_by_role("button", name="Teach", exact=True).click()
    visit.wait_for_selector(".tt-lesson[data-state=done]")
    visit.locator("[data-live]").click()
    visit.wait_for_selector(".tt-answer .tk-bars")
    visit.locator("[data-live]").click()
    assert visit.locator(".tt-seen video").count() == 0


@pytest.mark.slow
def test_pictures_are_snapped_by_webcam_while_the_button_is_held(visit):
    card = visit.locator(".tt-class").first
    card.get_by_role("button", name="Webcam").click()
    visit.wait_for_function("document.querySelector('.tt-camera video')?.videoWidth > 0")
    visit.hover(".tt-hold")
    visit.mouse.down()
    visit.wait_for_function("document.querySelectorAll('.tt-shelf .tt-thumb').length > 2")
    visit.mouse.up()
    card.get_by_role("button", name="Close webcam").click()
    assert visit.locator(".tt-camera video").count() == 0


@pytest.mark.slow
def test_a_closed_page_stops_the_lesson_within_two_seconds(browser, served, quick_lessons, zipped, picture, tmp_path):
    (tmp_path / "slow.zip").write_bytes(zipped({"sleep/1.png": picture(1), "b/2.png": picture(2)}))
    begun = []
    with pytest.MonkeyPatch.context() as patch:
        start = lessons.Lesson.begin
        patch.setattr(lessons.Lesson, "begin", lambda self, then: (begun.append(self), start(self, then)))
        page = browser.new_page()
        page.goto(served)
        page.get_by_role("tab", name="Teach", exact=True).click()
        page.set_input_files("[data-zip]", str(tmp_path / "slow.zip"))
        _count(page, 2)
        page.get_by_role("button", name="Teach", exact=True).click()
        page.wait_for_selector(".tt-now:has-text('computing features')")
        page.close()
        closed = time.monotonic()
        while not begun[0].is_over or begun[0].folder.parent.exists():
            assert time.monotonic() < closed + 2
            time.sleep(0.02)
        assert begun[0].wait(0)


@pytest.mark.slow
def test_two_visitors_teach_at_once_and_see_only_their_own(
    browser, visit, served, quick_lessons, digits_zip, zipped, picture, tmp_path
):
    (tmp_path / "other.zip").write_bytes(zipped({f"{name}/{n}.png": picture(n) for n, name in enumerate("xy")}))
    other = browser.new_page()
    other.goto(served)
    other.get_by_role("tab", name="Teach", exact=True).click()
    visit.set_input_files("[data-zip]", str(digits_zip))
    other.set_input_files("[data-zip]", str(tmp_path / "other.zip"))
    _count(visit, 60)
    _count(other, 2)
    for page in (visit, other):
        page.get_by_role("button", name="Teach", exact=True).click()
    for page, names in ((visit, ["3", "5", "8"]), (other, ["x", "y"])):
        page.wait_for_selector(".tt-lesson[data-state=done]")
        assert page.locator(".tt-confusion tbody th").all_inner_texts() == names
    other.close()


@pytest.mark.slow
def test_on_a_phone_nothing_is_wider_than_the_screen(browser, served, quick_lessons, digits_zip):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(served)
    page.get_by_role("tab", name="Teach", exact=True).click()
    page.set_input_files("[data-zip]", str(digits_zip))
    _count(page, 60)
    page.get_by_role("button", name="Teach", exact=True).click()
    page.wait_for_selector(".tt-lesson[data-state=done]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
