"""The page in a real browser: a person teaches four things, and the page stays quiet, whole and its own.

Pictures of the page in light, dark and on a telephone are written to the folder EDGE_ZOFC_SCREENSHOTS, if it is set.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live_process import Process, started
from photographs import PHOTOGRAPHS

from edge_zofc.export.options import ExportOptions
from edge_zofc.export.writer import export_bundle

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

pytestmark = pytest.mark.browser
THINGS = ("Hat", "Pants", "Shoes", "Dress")
HOSTILE = '<img src=x onerror="document.title=1"><b>&amp;\'"`${1}'
SHOWN, SHOWINGS = 5, 4
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
TELEPHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    export_bundle(ExportOptions(out=folder, gradient=False))
    return folder


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with playwright.sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


class Person:
    """What a person does with the page, and what they see of it. Nothing waits by code in the page: its policy."""

    def __init__(self, browser, address: str, process: Process, **context) -> None:
        self.process, self.told, self.asked = process, [], set()
        self.page = browser.new_context(**context).new_page()
        self.page.on("console", lambda message: self.told.append(message.text))
        self.page.on("pageerror", lambda error: self.told.append(str(error)))
        self.page.on("request", lambda request: self.asked.add(request.url.split("/")[2]))
        self.page.goto(address)
        self.until(lambda: "MiB" in self.text("#memory"))

    def text(self, where: str) -> str:
        return self.page.locator(where).first.inner_text()

    def until(self, condition, seconds: float = 30.0):
        limit = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < limit, (self.text("#answer"), self.text("#note"), self.told)
            time.sleep(0.05)
        return found

    def add(self, name: str) -> None:
        self.page.fill("#name", name)
        self.page.click("#add button")

    def row(self, name: str):
        return self.page.locator(".class").filter(has=self.page.locator(".name").get_by_text(name, exact=True))

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """With the button held down by the mouse."""
        self.row(name).locator(".hold").scroll_into_view_if_needed()
        box = self.row(name).locator(".hold").bounding_box()
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.page.mouse.down()
        self.until(lambda: name in self.text("#badge") if self.page.locator("#badge").is_visible() else False)
        yield
        self.page.mouse.up()
        self.until(lambda: not self.page.locator("#badge").is_visible())

    def show(self, name: str, pictures: list[Path]) -> None:
        """Hold the button while these pictures are before the camera."""
        with self.holding(name):
            for number, path in enumerate(pictures, 1):
                self.process.frame(path.read_bytes())
                self.until(lambda n=number: f"{n} picture" in self.text("#badge"))

    def answer_to(self, path: Path) -> str:
        """What the page says of a picture that stays before the camera for a while."""
        for _ in range(7):
            self.process.frame(path.read_bytes())
        number = self.process.seen()
        self.until(lambda: self.page.evaluate("document.querySelector('#answer').dataset.picture") == str(number))
        return self.text("#answer")

    def overflow(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def pictures_of(name: str, part: str) -> list[Path]:
    return sorted((PHOTOGRAPHS / part / name).glob("*.jpg"))


def screenshot(page, name: str) -> None:
    if folder := os.environ.get("EDGE_ZOFC_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def process(bundle, tmp_path_factory):
    words = ("--camera", "browser", "--run", tmp_path_factory.mktemp("live") / "run", "--bundle", bundle, "--no-learn")
    with started(*words) as child:
        yield Process(child)


@pytest.fixture(scope="module")
def taught(browser, process):
    """A person who has shown four things, four times each, the fourth time for the test."""
    person = Person(browser, process.address, process, viewport=DESK)
    for name in THINGS:
        person.add(name)
        pictures = pictures_of(name, "train")
        for showing in range(SHOWINGS):
            person.show(name, pictures[showing * SHOWN : (showing + 1) * SHOWN])
    return person


def test_unseen_photographs_are_named_rightly(taught):
    right, said = 0, []
    for name in THINGS:
        for path in pictures_of(name, "test")[:4]:
            said.append((name, taught.answer_to(path)))
            right += said[-1][1] == name
    assert right >= 10, said
    assert "of 20 named right" in taught.text("#kept-back")
    assert "15 to learn from" in taught.row("Hat").inner_text()
    screenshot(taught.page, "light")


def test_the_page_is_quiet_and_asks_nobody_else(taught):
    assert taught.told == []
    assert taught.asked == {f"127.0.0.1:{taught.process.port}"}


def test_a_correction_is_one_click_and_undo_takes_it_back(taught):
    taught.answer_to(pictures_of("Shirt", "test")[0])
    chip = taught.page.locator("#chips button").first
    name = chip.inner_text()
    chip.click()
    taught.until(lambda: f"that is {name}" in taught.text("#note"))
    taught.until(lambda: "16 to learn from" in taught.row(name).inner_text())
    taught.page.click("#undo")
    taught.until(lambda: "15 to learn from" in taught.row(name).inner_text())


def test_pictures_are_chosen_moved_and_forgotten(taught):
    thumbs = taught.page.locator("#pictures button")
    taught.until(lambda: thumbs.count() == 60 and taught.text("#count") == "80 pictures")
    thumbs.nth(0).click()
    thumbs.nth(2).click(modifiers=["Shift"])
    assert taught.text("#chosen-count") == "3 chosen"
    screenshot(taught.page, "chosen")
    taught.page.select_option("#move", "Hat")
    taught.until(lambda: "Moved 3 pictures to Hat" in taught.text("#note"))
    taught.page.click("#undo")
    taught.until(lambda: "no longer moved" in taught.text("#note"))
    thumbs.nth(0).click()
    taught.page.click("#forget")
    taught.until(lambda: "Forgot 1 picture" in taught.text("#note"))
    taught.page.click("#undo")
    taught.until(lambda: taught.text("#count") == "80 pictures")


def test_the_space_bar_shows_and_a_hostile_name_stays_text(taught):
    name = HOSTILE[:60].replace("/", "").strip()
    taught.add(name)
    taught.page.locator("#things-title").click()
    taught.page.keyboard.down("Space")
    taught.until(lambda: taught.page.locator("#badge").is_visible())
    taught.process.frame(pictures_of("Shirt", "train")[0].read_bytes())
    taught.until(lambda: "1 picture" in taught.text("#badge"))
    taught.page.keyboard.up("Space")
    taught.until(lambda: name in [row.inner_text() for row in taught.page.locator("#pictures .label").all()])
    found = taught.page.evaluate(
        "[document.title, document.querySelectorAll('img[src=x], main b').length, document.images.length]"
    )
    assert found[:2] == ["Teach it by showing", 0]
    assert taught.told == []
    taught.row(name).locator(".dots").click()
    taught.row(name).locator(".forget-class").click()
    taught.until(lambda: taught.row(name).count() == 0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_all_of_it_without_scrolling_sideways(browser, taught, scheme):
    words = {"viewport": TELEPHONE, "color_scheme": scheme, "has_touch": True, "is_mobile": True}
    person = Person(browser, taught.process.address, taught.process, **words)
    taught.process.frame(pictures_of("Hat", "test")[0].read_bytes())
    person.until(lambda: person.page.locator("#pictures button").count() == 60)
    assert person.overflow() == 0
    small = person.page.evaluate(
        "[...document.querySelectorAll('button, select, input')].filter(e => e.checkVisibility())"
        ".map(e => [e.id || e.className, Math.round(e.getBoundingClientRect().height)]).filter(([, h]) => h < 44)"
    )
    assert small == [], "touch targets have 44 pixels"
    screenshot(person.page, f"telephone-{scheme}")
    with person.holding("Shoes"):  # far below the picture, which comes along
        top = person.page.evaluate("document.querySelector('#stage').getBoundingClientRect().top")
        assert top == 0 and person.page.evaluate("scrollY") > 0 and person.overflow() == 0
        if os.environ.get("EDGE_ZOFC_SCREENSHOTS"):
            person.page.screenshot(path=Path(os.environ["EDGE_ZOFC_SCREENSHOTS"]) / f"telephone-{scheme}-held.png")
    assert person.told == []
    person.page.context.close()


def test_a_finger_holds_the_button_and_a_lifted_one_lets_go(browser, taught):
    words = {"viewport": TELEPHONE, "has_touch": True, "is_mobile": True}
    person = Person(browser, taught.process.address, taught.process, **words)
    hold = person.row("Hat").locator(".hold")
    hold.scroll_into_view_if_needed()
    box, screen = hold.bounding_box(), person.page.context.new_cdp_session(person.page)
    finger = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    screen.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [finger]})
    person.until(lambda: person.page.locator("#badge").is_visible())
    time.sleep(1)  # a long press must open no menu and must not end it
    assert person.page.locator("#badge").is_visible()
    screen.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    person.until(lambda: not person.page.locator("#badge").is_visible())
    person.page.context.close()


def test_the_browsers_own_camera_gives_pictures(browser, taught):
    flags = [*FLAGS, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with_camera = browser.browser_type.launch(executable_path=shutil.which("chromium"), args=flags)
    person = Person(with_camera, taught.process.address, taught.process, viewport=DESK)
    before = taught.process.seen()
    person.page.click("#use")
    person.until(lambda: taught.process.seen() >= before + 3)
    assert person.page.locator("#video").is_visible() and person.told == []
    assert person.asked == {f"127.0.0.1:{taught.process.port}"}
    with_camera.close()


def test_the_dark_page_is_dark(browser, taught):
    person = Person(browser, taught.process.address, taught.process, viewport=DESK, color_scheme="dark")
    colours = person.page.evaluate("[document.body, document.querySelector('h1')].map(e => getComputedStyle(e))"
                                   ".map((s, i) => i ? s.color : s.backgroundColor)")  # fmt: skip
    background, ink = (sum(map(int, colour[4:-1].split(","))) / 3 for colour in colours)
    assert background < 40 and ink > 200
    taught.process.frame(pictures_of("Shoes", "test")[1].read_bytes())
    person.until(lambda: person.page.locator("#pictures button").count() == 60)
    screenshot(person.page, "dark")
    person.page.context.close()


def test_the_buttons_can_be_reached_and_held_by_keys(taught):
    taught.row("Hat").locator(".hold").focus()
    taught.page.keyboard.down("Enter")
    taught.until(lambda: taught.page.locator("#badge").is_visible())
    taught.page.keyboard.up("Enter")
    taught.until(lambda: not taught.page.locator("#badge").is_visible())
    outline = taught.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_press_goes_on_though_another_things_button_loses_the_focus(taught):
    """As after a name was added, whose button has it."""
    taught.row("Shoes").locator(".hold").focus()
    with taught.holding("Hat"):
        time.sleep(1)
        assert taught.page.locator("#badge").is_visible()


def test_a_lesson_that_was_kept_becomes_a_task(taught):
    taught.page.click("#done")
    taught.until(lambda: "Kept as 001_lesson" in taught.text("#note"))
    taught.until(lambda: taught.page.locator("#pictures button").count() == 0)
    assert "Hat" in taught.text("#classes")
    assert taught.told == []
