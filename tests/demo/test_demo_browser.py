"""The page as a visitor uses it, in a real Chromium."""

import csv
import io
import json
import os
import re
import shutil
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from toolkit.bundle import EXAMPLE_LABELS, read_manifest, write_manifest
from toolkit.data.pixels.decode import register_heif
from toolkit.demo import launch
from toolkit.demo.classifier import Classifier

pytestmark = pytest.mark.browser

UPLOAD = "#picture input[type=file]"
ANSWER = "#answer [data-state=answer]"
PROBLEM = "#answer [data-state=problem]"
COPY = """async bytes => {
  const blob = new Blob([new Uint8Array(bytes)], {type: "image/png"});
  await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
}"""
DROP = """named => {
  const data = new DataTransfer();
  for (const [name, bytes] of Object.entries(named)) data.items.add(new File([new Uint8Array(bytes)], name));
  const heading = document.querySelector("h1");
  for (const type of ["dragenter", "dragover", "drop"])
    heading.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


@pytest.fixture
def visit(visitor):
    """A visitor's page that is complete."""
    visitor.wait_for_selector(".tk-example")
    return visitor


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_list_that_is_opened_and_left_changes_nothing(visit):
    _choose(visit, "engine", "litert")
    visit.wait_for_function("document.querySelector('#engine input').value === 'litert'")
    for leave in (lambda: visit.keyboard.press("Escape"), lambda: visit.mouse.click(5, 5)):
        visit.click("#bundle input")
        visit.wait_for_selector("[role=option]")
        leave()
        visit.mouse.click(5, 5)
        visit.wait_for_timeout(300)  # an answer that resets it would come by now
        assert visit.input_value("#engine input") == "litert"
    _choose(visit, "bundle", "digits/1")
    visit.wait_for_selector("#about:has-text('lenet5')")
    visit.wait_for_timeout(300)
    assert visit.input_value("#engine input") == "litert"


@pytest.mark.slow
def test_pasting_anywhere_shows_the_picture(visit, seven):
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.get_by_role("tab", name="Draw").click()
    visit.evaluate(COPY, list(seven.read_bytes()))
    visit.keyboard.press("Control+V")
    visit.wait_for_selector(".tk-label:text-is('7')")
    visit.wait_for_function("document.querySelector('#picture img')?.naturalWidth === 8")
    assert visit.get_by_role("tab", name="Picture").get_attribute("aria-selected") == "true"


@pytest.mark.slow
def test_of_two_dropped_pictures_the_first_is_answered_and_named(visit, seven, bad_files):
    named = {"seven.png": list(seven.read_bytes()), "<b>.jpg": list(bad_files["whole"].read_bytes())}
    visit.evaluate(DROP, named)  # on the page's heading, not on the picture's place
    visit.wait_for_selector(".tk-label:text-is('7')")
    assert visit.inner_text(".tk-note") == "2 files came at once: this is the answer to the first, seven.png."
    visit.evaluate(DROP, dict(reversed(named.items())))
    visit.wait_for_selector(".tk-note:has-text('the first, <b>.jpg')")


@pytest.mark.slow
@pytest.mark.parametrize("image_format", ["TIFF", "AVIF", "HEIF"])
def test_what_browsers_cannot_show_is_shown_and_answered(visit, seven, tmp_path, image_format):
    path = tmp_path / f"scan.{image_format.lower()}"
    if image_format == "HEIF":
        register_heif()
    Image.open(seven).convert("RGB").resize((64, 64), Image.Resampling.NEAREST).save(path, image_format)
    with visit.expect_file_chooser() as chosen:
        visit.locator("#picture button").first.click()
    assert ".heic" in chosen.value.element.get_attribute("accept")
    chosen.value.set_files(str(path))
    visit.wait_for_selector(".tk-label:text-is('7')")
    visit.wait_for_function("document.querySelector('#picture img')?.naturalWidth === 64")


@pytest.mark.slow
def test_drawing_is_answered_stroke_by_stroke(visit):
    visit.get_by_role("button", name="Draw one").click()
    canvas = visit.locator("#drawing canvas")
    box = canvas.bounding_box()

    def stroke(*points):
        for number, (right, down) in enumerate(points):
            visit.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"], steps=5)
            if number == 0:
                visit.mouse.down()
        visit.mouse.up()

    stroke((0.5, 0.1), (0.28, 0.25), (0.22, 0.5), (0.28, 0.75), (0.5, 0.9), (0.72, 0.75), (0.78, 0.5), (0.5, 0.1))
    visit.wait_for_selector(ANSWER)
    assert visit.locator(".tk-bars .tk-name").first.inner_text() == "0"
    visit.get_by_role("button", name="Clear").click()
    visit.wait_for_selector("#answer [data-state=empty]")
    assert canvas.evaluate("canvas => canvas.getContext('2d').getImageData(0, 0, 280, 280).data.indexOf(254) ") == -1


@pytest.mark.slow
def test_ink_on_paper_is_turned_and_said_to_be(visit, seven, tmp_path):
    path = tmp_path / "paper.png"
    Image.open(seven).convert("L").point(lambda value: 225 - 0.8 * value).save(path)
    visit.set_input_files(UPLOAD, str(path))
    visit.wait_for_selector(".tk-turned")
    assert visit.locator(".tk-bars .tk-name").first.inner_text() == "7"
    visit.wait_for_function("document.querySelector('.tk-turned img').naturalWidth === 32")


@pytest.mark.slow
def test_a_transparent_picture_stands_on_white(browser, served, tmp_path):
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    page = browser.new_page(color_scheme="dark")
    page.goto(served)
    page.wait_for_selector(".tk-example")
    page.set_input_files(UPLOAD, str(tmp_path / "clear.png"))
    page.wait_for_function("document.querySelector('#picture img')?.naturalWidth === 64")
    shot = Image.open(io.BytesIO(page.locator("#picture img").screenshot())).convert("RGB")
    assert shot.getpixel((shot.width // 2, shot.height // 2)) == (255, 255, 255)
    page.close()


@pytest.mark.slow
def test_labels_of_any_kind_are_shown_as_they_are(browser, bundles, seven, tmp_path, free_port):
    hostile = (
        "$1_to_${5}",
        "<b>bold</b>",
        "a\nb",
        "`{{x}}`",
        "犬と猫",
        "long " * 80,
        "Ünï/\\",
        "'\"&amp;",
        "unbroken" * 40,
        " ",
    )
    version = Path(shutil.copytree(bundles / "digits" / "1", tmp_path / "$x" / "1"))
    rows = [{"file": f"{index:02d}.png", "label": label} for index, label in enumerate(hostile)]
    (version / EXAMPLE_LABELS).write_text(json.dumps(rows))
    write_manifest(version, replace(read_manifest(version), labels=hostile))
    demo = launch(tmp_path, port=free_port, block=False)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(demo.local_url)
    for index in range(3):
        page.locator(".tk-example").nth(index).click()
        page.wait_for_selector(".tk-facts:has-text('$x/1')")
        page.wait_for_function(
            "text => document.querySelector('.tk-truth b')?.textContent === text", arg=hostile[index]
        )
    assert sorted(page.locator(".tk-caption").all_text_contents()) == sorted(hostile[:3])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#answer b b").count() == 0
    page.close()
    demo.close(verbose=False)


@pytest.mark.slow
def test_examples_by_mouse_and_keyboard(visit):
    visit.get_by_label("Example 1").click()
    visit.wait_for_selector(".tk-label:text-is('0')")
    assert visit.inner_text(".tk-truth") == "true label: 0 – right"
    assert visit.locator(".tk-caption").all_inner_texts() == ["0", "1", "2"]
    visit.get_by_label("Example 2").focus()
    visit.keyboard.press("Enter")
    visit.wait_for_selector(".tk-label:text-is('1')")
    assert visit.locator("#picture img").count() == 1
    _choose(visit, "engine", "litert")
    visit.wait_for_selector(".tk-facts:has-text('on litert')")
    assert visit.inner_text(".tk-label") == "1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "Damaged"),  # the words for each kind are held by the page's own tests
        ("text", "Not a picture in a supported format"),
        ("huge", "More than 178,000,000"),
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


@pytest.mark.slow
def test_removing_the_picture_clears_the_answer(visit, seven):
    visit.set_input_files(UPLOAD, str(seven))
    visit.wait_for_selector(ANSWER)
    visit.get_by_label("Remove Image").click()
    visit.wait_for_selector("#answer [data-state=empty]")


@pytest.mark.slow
def test_a_picture_from_the_camera(visit):
    visit.get_by_label("Capture from camera").click()
    visit.get_by_text("Click to Access Webcam").click()
    visit.wait_for_function("document.querySelector('#picture video')?.videoWidth > 0")
    visit.get_by_label("capture photo").click()
    visit.wait_for_selector(ANSWER)


@pytest.mark.slow
def test_a_file_over_the_limit_is_named_before_it_is_sent(visit, tmp_path, seven):
    page, large = visit, tmp_path / "large.png"
    large.write_bytes(os.urandom(21_000_000))
    page.set_input_files(UPLOAD, str(large))
    page.wait_for_selector(PROBLEM)
    assert "large.png was not sent" in page.inner_text("#answer")
    assert "21.0 MB, and at most 20 MB are taken of one picture." in page.inner_text("#answer")
    page.set_input_files(UPLOAD, str(seven))
    page.wait_for_selector(".tk-label:text-is('7')")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")],
)
def test_nothing_sticks_out_sideways(browser, served, seven, some_zip, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(served)
    page.wait_for_selector(".tk-example")

    def look(name: str) -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if folder := os.environ.get("TOOLKIT_SHOTS"):
            page.wait_for_timeout(500)
            page.screenshot(path=str(Path(folder) / f"{name}_{width}_{scheme}.png"), full_page=True)

    page.set_input_files(UPLOAD, str(seven))
    page.wait_for_selector(ANSWER)
    look("demo")
    page.set_input_files(UPLOAD, str(some_zip))
    page.wait_for_selector(".tk-batch[data-state=done]")
    look("several")
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector(".tk-compare[data-state=done]")
    look("compare")
    page.close()


@pytest.fixture
def some_zip(tmp_path, digits) -> Path:
    """Two digits of each of five classes, in folders of their classes, and a file that is no picture."""
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for label in "01234":
            for picture in sorted((digits / label).glob("*.png"))[:2]:
                zipped.write(picture, f"{label}/{picture.name}")
        zipped.writestr("0/broken.png", "Dear network")
    return path


@pytest.mark.slow
def test_a_zip_file_becomes_a_gallery_and_a_table(visit, some_zip):
    visit.set_input_files(UPLOAD, str(some_zip))
    visit.wait_for_selector(".tk-batch[data-state=done]")
    assert visit.locator(".tk-tile").count() == 11
    assert "some.zip: 11 pictures" in visit.inner_text(".tk-note >> nth=0")
    with visit.expect_download() as download:
        visit.get_by_text("Download CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text("utf-8-sig").splitlines()))
    assert (download.value.suggested_filename, len(rows)) == ("answers.csv", 11)
    assert [row["path"] for row in rows if row["problem"]] == ["0/broken.png"]
    # A chip shows only its own, by keyboard too; a tile shows its picture large.
    visit.locator(".tk-chip[data-kind='not read']").focus()
    visit.keyboard.press("Enter")
    assert visit.locator(".tk-tile:visible").count() == 1
    visit.keyboard.press("Enter")
    assert visit.locator(".tk-tile:visible").count() == 11
    visit.locator(".tk-tile").last.focus()
    visit.keyboard.press("Enter")
    visit.wait_for_selector(f"#answer .tk-note:has-text('{rows[-1]['path']}')")
    assert visit.inner_text("#answer .tk-label") in (rows[-1]["label"], "none of these")


@pytest.mark.slow
def test_several_files_are_chosen_in_one_dialog_and_a_bad_archive_is_explained(visit, digits):
    with visit.expect_file_chooser() as chosen:
        visit.locator("#picture button").first.click()
    assert chosen.value.is_multiple()
    chosen.value.set_files([str(path) for path in sorted((digits / "3").glob("*.png"))[:3]])
    visit.wait_for_selector(".tk-batch[data-state=done]")
    assert visit.locator(".tk-tile").count() == 3
    assert "3 files came at once: this is the answer to the first" in visit.inner_text(".tk-note")
    _choose(visit, "bundle", "digits/1")
    visit.wait_for_selector(".tk-facts:has-text('digits/1')")
    visit.evaluate(DROP, {"pets.zip": list(b"Dear network")})
    visit.wait_for_selector(PROBLEM)
    assert "pets.zip: a damaged or encrypted archive" in visit.inner_text("#answer")
    assert visit.locator(".tk-tile").count() == 0


@pytest.mark.slow
def test_work_on_several_pictures_stops_when_the_tab_is_closed(visit, seven, monkeypatch):
    answered = []
    classify = Classifier.classify

    def slowly(self, *args):
        time.sleep(0.1)
        answered.append(args)
        return classify(self, *args)

    monkeypatch.setattr(Classifier, "classify", slowly)
    visit.evaluate(DROP, {f"{number}.png": list(seven.read_bytes()) for number in range(150)})
    visit.wait_for_selector(".tk-batch[data-state=working]")
    visit.close()
    time.sleep(2)
    soon = len(answered)
    time.sleep(1)
    assert len(answered) == soon < 150


@pytest.mark.slow
def test_the_threshold_is_a_slider_that_tells_its_price(visit, seven):
    visit.set_input_files(UPLOAD, str(seven))
    visit.wait_for_selector(ANSWER)
    visit.wait_for_selector("#tk-below")
    visit.locator("#tk-below").focus()
    visit.keyboard.press("End")
    visit.wait_for_function("document.querySelector('.tk-threshold output').textContent === '99.0 %'")
    assert re.match(
        r"(Refuses [\d.]+ % of 359 held-out pictures; of the rest|Nothing is)", visit.inner_text(".tk-cost")
    )
    sure = float(visit.locator(".tk-bars .tk-share").first.inner_text().strip("> %"))
    if sure < 99:
        visit.wait_for_selector(".tk-none")
    visit.get_by_role("button", name="reset").click()
    visit.wait_for_selector(".tk-label:text-is('7')")


@pytest.mark.slow
def test_ten_crops_are_a_switch(visit, seven):
    visit.set_input_files(UPLOAD, str(seven))
    visit.wait_for_selector(ANSWER)
    visit.get_by_label("Average 10 crops").check()
    visit.wait_for_selector(".tk-facts:has-text(', 10 crops')")
    visit.wait_for_selector("#tk-below", state="detached")


@pytest.mark.slow
def test_more_files_than_are_taken_are_not_even_sent(visit, seven):
    sent = []
    visit.on("request", lambda request: sent.append(request.url) if "/upload" in request.url else None)
    visit.evaluate(DROP, {f"{number}.png": list(seven.read_bytes()) for number in range(201)})
    visit.wait_for_selector(PROBLEM)
    assert "201 files were not sent" in visit.inner_text("#answer")
    assert "At most 200 pictures" in visit.inner_text("#answer")
    assert sent == []


@pytest.mark.slow
def test_networks_and_engines_are_compared_on_the_picture_that_was_classified(visit, seven, bad_files):
    visit.set_input_files(UPLOAD, str(seven))
    visit.wait_for_selector(ANSWER)
    visit.get_by_role("tab", name="Compare").click()
    visit.wait_for_selector(".tk-compare[data-state=done]")
    assert visit.inner_text("#comparison .tk-label") == "7"
    visit.wait_for_timeout(500)
    assert visit.locator(".tk-compare[data-state=done]").count() == 1  # and is not asked a second time
    visit.click("#compare-bundles input")
    visit.get_by_role("option", name="digits/1", exact=True).click()
    visit.wait_for_selector(".tk-compare caption:has-text('digits/1')")
    visit.keyboard.press("Escape")
    visit.click("#compare-engines input")
    visit.get_by_role("option", name="litert-int8", exact=True).click()
    visit.wait_for_selector(".tk-glance:has-text('int8 against float')")
    visit.evaluate(DROP, {"letter.png": list(bad_files["text"].read_bytes())})
    visit.wait_for_selector("#comparison [data-state=problem]")
    assert "letter.png cannot be read as a picture" in visit.inner_text("#comparison")


@pytest.mark.slow
def test_a_page_load_is_small(browser, served):
    page = browser.new_context().new_page()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    moved = []
    session.on("Network.dataReceived", lambda event: moved.append(event["encodedDataLength"] or event["dataLength"]))
    page.goto(served)
    page.wait_for_selector(".tk-example")
    page.wait_for_timeout(1000)
    assert 100_000 < sum(moved) < 3_000_000
    page.close()
