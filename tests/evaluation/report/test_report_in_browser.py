"""The report in Chromium: narrow and wide, light and dark; nothing logged, nothing cut off, everything readable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from kdcli.evaluation.report.html_page import Material, write_report
from tests.evaluation.report.browser import Browser, Scheme, started
from tests.evaluation.report.material import MARKUP, compare_layers, evaluation_of, family, task_of, whole_material

OPEN_ALL = "document.querySelectorAll('details').forEach(each => each.open = true);"
SIDEWAYS = "return document.documentElement.scrollWidth - window.innerWidth"
SIZES = "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect()).map(r => Math.min(r.width, r.height))"
SMALLEST = """return Math.min(...[...document.querySelectorAll('svg')].flatMap(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll('text')].map(text => parseFloat(getComputedStyle(text).fontSize) * scale);
}))"""
CUT_OFF = """return [...document.querySelectorAll('svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map(text => text.textContent);
})"""
NARROW_THAT_SCROLL = """return [...document.querySelectorAll('figure:not(.broad) .drawing')]
  .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.firstElementChild.getAttribute('aria-label'))"""
DIFFERENCES = """const box = document.querySelector('#scores .differences > .wide'), place = box.getBoundingClientRect();
const picture = document.querySelector('#scores figure').getBoundingClientRect();
return [place.left >= picture.right && place.top < picture.bottom, box.scrollWidth - box.clientWidth];"""
LOWEST_CONTRAST = """
const rgb = colour => colour.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, place) => sum + v * [.2126, .7152, .0722][place], 0);
const behind = element => {
  for (; element; element = element.parentElement) {
    const colour = rgb(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll('body, body *')) {
  const drawn = element.tagName === 'text', fill = drawn && element.style.fill;
  if (drawn ? !fill.startsWith('var') : element.closest('svg')) continue;
  if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
  const style = getComputedStyle(element);
  const pair = [rgb(drawn ? style.fill : style.color), behind(element)].map(luminance);
  found.push([(Math.max(...pair) + .05) / (Math.min(...pair) + .05), element.textContent.trim().slice(0, 40)]);
}
return found.reduce((lowest, each) => each[0] < lowest[0] ? each : lowest)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as running:
        yield running


def _difficult() -> Material:
    """20 classes and 8 models with long names and markup, a teacher of 24 layers."""
    task = task_of([f"{MARKUP} {number} Donaudampfschifffahrtsgesellschaft" for number in range(20)], 200, "macro-f1")
    long = "distilled-student-of-two-teachers-4L-312H-12A-seed-7-try-three"
    found = evaluation_of(task, family(task, long, (MARKUP, "x" * 60, "electra")))
    return whole_material(title="y" * 80, evaluations=[found], layers=compare_layers({MARKUP: 24, "x" * 60: 6}, heads=16))


@pytest.fixture(scope="module", params=["whole", "difficult"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Path:
    material = whole_material() if request.param == "whole" else _difficult()
    return write_report(material, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("scheme", get_args(Scheme))
@pytest.mark.parametrize("width", [400, 1400])
def test_page_can_be_read(page: Path, browser: Browser, width: int, scheme: Scheme) -> None:
    browser.log()
    browser.open(page, width, scheme)
    browser.run(OPEN_ALL)
    assert browser.run("return window.innerWidth") == width
    assert browser.run(SIDEWAYS) <= 0
    sizes = browser.run(SIZES)
    assert len(sizes) >= 15
    assert min(sizes) > 0
    assert browser.run(SMALLEST) >= 9
    assert browser.run(CUT_OFF) == []
    assert browser.run(NARROW_THAT_SCROLL) == []
    contrast, where = browser.run(LOWEST_CONTRAST)
    assert contrast >= 4.5, where
    assert browser.log() == []


def test_differences_stand_beside_the_scores_where_there_is_room(page: Path, browser: Browser) -> None:
    browser.open(page, 1400, "light")
    assert browser.run(DIFFERENCES) == [True, 0]
    browser.open(page, 400, "light")
    assert browser.run(DIFFERENCES)[0] is False


def test_dark_page_is_dark_and_light_page_is_light(page: Path, browser: Browser) -> None:
    backgrounds = []
    for scheme in get_args(Scheme):
        browser.open(page, 400, scheme)
        backgrounds.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == ["rgb(244, 246, 248)", "rgb(17, 20, 24)"]


def test_print_shows_what_is_folded_away(page: Path, browser: Browser, tmp_path: Path) -> None:
    browser.open(page, 400, "dark")
    browser.print(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    browser.media("print")
    heights = browser.run("return [...document.querySelectorAll('details')].map(each => each.getBoundingClientRect().height)")
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.media("")
    assert min(heights) > 40
    assert background == "rgb(255, 255, 255)"
