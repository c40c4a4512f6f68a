"""Look inside and Networks as a visitor uses them, in a real Chromium."""

import re
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser

PICTURE = "#inside-picture input[type=file]"


@pytest.fixture
def visit_tab(visitor) -> Callable[[str], Any]:
    """Open a tab."""

    def open_tab(name: str) -> Any:
        visitor.get_by_role("tab", name=name, exact=True).click()
        return visitor

    return open_tab


@pytest.mark.slow
def test_heat_over_a_picture_is_as_strong_as_the_slider_says(visit_tab, seven):
    page = visit_tab("Look inside")
    page.set_input_files(PICTURE, str(seven))
    page.wait_for_selector("#heat [data-state=map]")
    assert page.input_value("#inside-label input").startswith("7 · ")
    heat = page.locator("#heat .tk-heat")
    assert heat.evaluate("image => image.naturalWidth") > 100
    slider = page.locator("#heat input[type=range]")
    for value, opacity in (("20", "0.2"), ("100", "1")):
        slider.fill(value)
        assert heat.evaluate("image => getComputedStyle(image).opacity") == opacity  # at once, in the browser
    page.locator("#heat [data-label='3']").click()
    page.wait_for_selector("#heat .tk-where:has-text('For 3 against all others')")
    assert slider.input_value() == "100"  # kept
    assert "never a quantized file" in page.inner_text("#heat")


@pytest.mark.slow
def test_every_view_of_a_picture_opens(visit_tab, seven):
    page = visit_tab("Look inside")
    page.set_input_files(PICTURE, str(seven))
    page.wait_for_selector("#heat [data-state=map]")
    page.get_by_role("tab", name="Features", exact=True).click()
    page.wait_for_selector("#features [data-state=features]")
    assert page.locator("#features .tk-sheet figure").count() == 16 + 6
    page.get_by_role("tab", name="Arithmetic", exact=True).click()
    page.locator("#arithmetic tr[data-name=stage2_conv]").click()
    worked = page.inner_text("#arithmetic .tk-worked")
    assert "(5·5·6 + 1)·16 = 2,416" in worked
    page.hover("#arithmetic .tk-seen", position={"x": 20, "y": 20})
    page.wait_for_selector("#arithmetic .tk-field-words:has-text('Row 1, column 1 of 10×10 cells sees 14×14 pixels')")
    page.keyboard.press("ArrowDown")


@pytest.mark.slow
def test_a_bad_picture_is_one_message_and_the_next_one_is_shown(visit_tab, bad_files, seven):
    page = visit_tab("Look inside")
    page.set_input_files(PICTURE, str(bad_files["truncated"]))
    page.wait_for_selector("#heat [data-state=problem]")
    assert "truncated.jpg cannot be read as a picture" in page.inner_text("#heat")
    assert page.locator("[data-state=problem]").count() == 1
    page.set_input_files(PICTURE, str(seven))
    page.wait_for_selector("#heat [data-state=map]")


@pytest.mark.slow
def test_the_notes_edge_is_worked_while_numbers_are_typed(visit_tab):
    page = visit_tab("Look inside")
    page.get_by_role("tab", name="Edges", exact=True).click()
    canvas = page.locator("#edges .tk-to")
    corner = {"x": 5, "y": 5}

    def answer() -> str:
        canvas.hover(position={"x": 60, "y": 60})
        canvas.hover(position=corner)
        return page.inner_text("#edges .tk-sum b")

    assert answer() == "−5"  # the notes' worked example
    words = "3·1 + 0·0 + 1·(−1) + 1·1 + 5·0 + 8·(−1) + 2·1 + 7·0 + 2·(−1)"
    assert words in page.inner_text("#edges .tk-sum")
    for name, expected in (("Sobel", "−12"), ("Horizontal edges", "−7"), ("The quiz’s 4×4", "−2")):
        page.get_by_role("button", name=name).click()
        value = answer()
        assert re.fullmatch(r"−?\d+", value), value
        if name != "The quiz’s 4×4":
            assert value == expected
    page.get_by_role("button", name="Your own").click()
    page.get_by_label("row 1, column 1").fill("2")
    assert answer() == "−2"
    page.get_by_label("row 2, column 2").fill("two")
    assert "“two” in row 2, column 2 is no number" in page.inner_text("#edges [role=alert]")
    assert answer() == "−2"  # what was right stays
    page.get_by_label("row 2, column 2").fill("1,5")
    page.wait_for_selector("#edges [role=alert]", state="hidden")
    assert answer() == "5.50"


@pytest.mark.slow
def test_what_is_drawn_on_the_board_is_answered(visit_tab):
    page = visit_tab("Look inside")
    page.get_by_role("tab", name="X or O", exact=True).click()
    page.wait_for_selector("#xo [data-answer=X]")
    page.get_by_role("button", name="O", exact=True).click()
    page.wait_for_selector("#xo [data-answer=O]")
    page.get_by_role("button", name="Clear", exact=True).last.click()
    cells = page.locator(".tk-board button")
    boxes = [cells.nth(index).bounding_box() for index in (10, 70)]  # from the second row's second to the eighth's
    (x0, y0), (x1, y1) = ((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes)
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move(x1, y1, steps=30)
    page.mouse.up()
    page.wait_for_function("document.querySelectorAll('.tk-board [aria-pressed=true]').length >= 7")
    page.wait_for_selector("#xo-maps [data-map='0'] i:text-is('1.00')")
    cells.nth(40).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert cells.nth(41).get_attribute("aria-pressed") == "true"


@pytest.mark.slow
def test_networks_are_chosen_on_the_timeline_by_name_and_in_the_table(visit_tab):
    page = visit_tab("Networks")
    page.wait_for_selector("[data-chosen=googlenet]")
    page.locator("#timeline [data-network=lenet5]").click()
    page.wait_for_selector("[data-chosen=lenet5]")
    assert "61,706" in page.inner_text("#network-page")
    page.wait_for_selector("#timeline .tk-chosen[data-network=lenet5]")
    assert page.locator("#timeline .tk-chosen").count() == 1
    page.locator("#timeline [data-network=resnet152]").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-chosen=resnet152]")
    page.get_by_text("All of them in a table").click()
    page.locator("#listing [data-network=xo]").click()
    page.wait_for_selector("[data-chosen=xo]")
    page.click("#network input")
    page.fill("#network input", "no such network")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    assert page.locator("[data-chosen=xo]").count() == 1  # what cannot be chosen changes nothing


@pytest.mark.slow
@pytest.mark.parametrize("tab", ["Look inside", "Networks"])
def test_tabs_fit_a_phone(browser, served, seven, tab):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(served)
    page.get_by_role("tab", name=tab, exact=True).click()
    if tab == "Look inside":
        page.set_input_files(PICTURE, str(seven))
        page.wait_for_selector("#heat [data-state=map]")
        for view, ready in (
            ("Features", "features"),
            ("Edges", "edges"),
            ("Arithmetic", "arithmetic"),
            ("X or O", "xo"),
        ):
            page.get_by_role("tab", name=view, exact=True).click()
            page.wait_for_selector(f"[data-state={ready}]")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
    else:
        page.wait_for_selector("[data-chosen=googlenet]")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
