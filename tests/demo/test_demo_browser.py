"""The page as a visitor uses it, in a real Chromium."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.browser

UPLOAD = "#picture input[type=file]"
ANSWER = "#answer [data-state=answer]"
PROBLEM = "#answer [data-state=problem]"


@pytest.fixture
def visit(browser, served) -> Iterator:
    """A fresh visitor's page. At the end: no errors on the console, and nothing asked of any other host."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, permissions=["camera"])
    page = context.new_page()
    page.set_default_timeout(15_000)
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(served)
    page.wait_for_selector(".tk-example")
    yield page
    context.close()
    assert errors == []
    hosts = {urlsplit(url).hostname for url in requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}


def _choose(page, dropdown: str, option: str) -> None:
    page.click(f"#{dropdown} input")
    page.get_by_role("option", name=option, exact=True).click()


def test_upload_shows_label_bars_time_and_network(visit, seven):
    visit.set_input_files(UPLOAD, str(seven))
    visit.wait_for_selector(ANSWER)
    assert visit.inner_text(".tk-label") == "7"
    assert visit.locator(".tk-bars li").count() == 5
    first, second = (visit.locator(".tk-track > span").nth(i).bounding_box()["width"] for i in (0, 1))
    assert first > second
    assert re.match(r"[\d.,]+ ms to decode and classify, digits/2 on \w+", visit.inner_text(".tk-facts"))
    assert re.search(r"lenet5 · 61,706 parameters · .*\n[\d.]+ % on \d+ held-out pictures", visit.inner_text("#about"))


def test_another_engine_and_another_bundle_answer_the_same_picture(visit, seven):
    visit.set_input_files(UPLOAD, str(seven))
    visit.wait_for_selector(ANSWER)
    _choose(visit, "engine", "savedmodel")
    visit.wait_for_selector(".tk-facts:has-text('digits/2 on savedmodel')")
    visit.click("#engine input")
    assert visit.get_by_role("option", name="litert-int8", exact=True).count() == 0
    visit.keyboard.press("Escape")
    _choose(visit, "bundle", "digits/1")
    visit.wait_for_selector(".tk-facts:has-text('digits/1')")
    _choose(visit, "engine", "litert-int8")
    visit.wait_for_selector(".tk-facts:has-text('digits/1 on litert-int8')")
    assert visit.inner_text(".tk-label") == "7"


def test_examples_by_mouse_and_keyboard(visit):
    visit.get_by_label("Example 1").click()
    visit.wait_for_selector(".tk-label:text-is('0')")
    visit.get_by_label("Example 2").focus()
    visit.keyboard.press("Enter")
    visit.wait_for_selector(".tk-label:text-is('1')")
    assert visit.locator("#picture img").count() == 1
    _choose(visit, "engine", "litert")
    visit.wait_for_selector(".tk-facts:has-text('on litert')")
    assert visit.inner_text(".tk-label") == "1"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "Damaged"),  # the words for each kind are held by the page's own tests
        pytest.param("text", "Not a picture in a supported format", marks=pytest.mark.slow),
        pytest.param("huge", "More than 178,000,000", marks=pytest.mark.slow),
    ],
)
def test_a_bad_file_is_explained_and_the_next_one_answered(visit, bad_files, seven, kind, message):
    visit.set_input_files(UPLOAD, str(bad_files[kind]))
    visit.wait_for_selector(PROBLEM)
    assert message in visit.inner_text("#answer")
    assert bad_files[kind].name in visit.inner_text("#answer")
    assert "Traceback" not in visit.content()
    visit.set_input_files(UPLOAD, str(seven))
    visit.wait_for_selector(".tk-label:text-is('7')")


def test_removing_the_picture_clears_the_answer(visit, seven):
    visit.set_input_files(UPLOAD, str(seven))
    visit.wait_for_selector(ANSWER)
    visit.get_by_label("Remove Image").click()
    visit.wait_for_selector("#answer [data-state=empty]")


def test_a_picture_from_the_camera(visit):
    visit.get_by_label("Capture from camera").click()
    visit.get_by_text("Click to Access Webcam").click()
    visit.wait_for_function("document.querySelector('#picture video')?.videoWidth > 0")
    visit.get_by_label("capture photo").click()
    visit.wait_for_selector(ANSWER)


def test_a_file_over_the_limit_is_named_before_it_is_sent(browser, served, tmp_path, seven):
    # Not through `visit`: Gradio itself logs a 404 for an upload that it did not start.
    large = tmp_path / "large.png"
    large.write_bytes(os.urandom(21_000_000))
    page = browser.new_page()
    page.goto(served)
    page.wait_for_selector(".tk-example")
    page.set_input_files(UPLOAD, str(large))
    page.get_by_text("exceed the maximum allowed size").first.wait_for()
    page.set_input_files(UPLOAD, str(seven))
    page.wait_for_selector(".tk-label:text-is('7')")
    page.close()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        *((1280, "dark"), (390, "light")),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((1280, "light"), (390, "dark"))),
    ],
)
def test_nothing_sticks_out_sideways(browser, served, seven, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(served)
    page.wait_for_selector(".tk-example")
    page.set_input_files(UPLOAD, str(seven))
    page.wait_for_selector(ANSWER)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("TOOLKIT_SHOTS"):
        page.wait_for_timeout(500)
        page.screenshot(path=str(Path(folder) / f"demo_{width}_{scheme}.png"), full_page=True)
    page.close()
