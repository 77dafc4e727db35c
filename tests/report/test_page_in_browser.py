"""What a browser makes of a page; skipped where there is none."""

import json

import pytest

from tests.report.browser import WHY_SKIPPED, Browser, find_browser
from tests.report.pages import HOSTILE, write_rich_page
from torchal.exchange import Question
from torchal.report import write_page

pytestmark = pytest.mark.skipif(find_browser() is None, reason=WHY_SKIPPED)


@pytest.fixture(scope="module")
def browser():
    started = Browser(find_browser())
    yield started
    started.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_rich_page(tmp_path_factory.mktemp("rich"))[0]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return write_rich_page(tmp_path_factory.mktemp("hostile"), n=5, hostile=True)[0]


def column(browser, number):
    """Return what is read in a column, in the rows that are seen."""
    rows = "[...document.querySelectorAll('.questions tbody tr')].filter((row) => !row.hidden)"
    return browser.value(f"{rows}.map((row) => row.cells[{number}].textContent)")


def click(browser, number):
    browser.value(f"document.querySelectorAll('.questions thead button')[{number}].click()")


def type_into(browser, field, text):
    event = "change" if field == "guess" else "input"
    browser.value(f"{field} = document.getElementById('{field}'); {field}.value = {json.dumps(text)}")
    browser.value(f"{field}.dispatchEvent(new Event('{event}'))")


class TestPage:
    @pytest.mark.parametrize("width", [1280, 400])
    @pytest.mark.parametrize("dark", [False, True])
    @pytest.mark.parametrize("name", ["page", "hostile"])
    def test_fits_and_shows_its_pictures_and_fetches_nothing(self, request, browser, name, width, dark):
        path = request.getfixturevalue(name)
        browser.open(path, width=width, dark=dark)
        assert browser.value("innerWidth") == width
        assert browser.value("document.documentElement.scrollWidth") <= width
        pictures = browser.value("[...document.images].map((image) => image.complete && image.naturalWidth)")
        assert pictures == [1600, 1600] + [8] * (30 if name == "page" else 5)
        others = [address for address in browser.requests() if not address.startswith("data:")]
        assert others == [path.resolve().as_uri()]
        assert browser.complaints() == []

    @pytest.mark.parametrize("width", [960, 1000, 1280])  # 960: the narrowest that has two columns
    def test_the_map_is_seen_whole_beside_the_classes(self, browser, page, width):
        browser.open(page, width=width)
        assert (
            browser.value(
                "(() => { const map = document.querySelector('.map'); return map.scrollWidth - map.clientWidth; })()"
            )
            == 0
        )

    def test_what_is_in_a_row_is_not_run(self, browser, hostile):
        browser.open(hostile)
        assert browser.value("window.hacked") is None
        assert browser.value("document.scripts.length") == 1
        assert browser.value("document.querySelector('h1').textContent") == f"Rows to label{HOSTILE}"
        type_into(browser, "guess", f"cat{HOSTILE}")
        assert column(browser, 0) == ["3"]
        assert browser.value("window.hacked") is None

    def test_what_would_be_fetched_is_refused(self, browser, page):
        browser.open(page)
        refused = browser.value(
            "new Promise((done) => { document.addEventListener('securitypolicyviolation', (event) => "
            "done(event.effectiveDirective)); fetch('https://example.com/').catch(() => {}); })"
        )
        assert refused == "connect-src"

    def test_one_map_is_seen(self, browser, page):
        for dark in (False, True):
            browser.open(page, dark=dark)
            seen = browser.value(
                "[...document.querySelectorAll('.map img')].map((image) => getComputedStyle(image).display !== 'none')"
            )
            assert seen == [not dark, dark]
        browser.open(page, dark=True, media="print")  # paper is white
        seen = "[...document.querySelectorAll('.map img')].map((image) => getComputedStyle(image).display !== 'none')"
        assert browser.value(seen) == [True, False]

    def test_columns_are_sorted(self, browser, page):
        browser.open(page)
        ranks = [str(rank) for rank in range(1, 31)]
        assert column(browser, 0) == ranks
        click(browser, 0)
        assert column(browser, 0) == ranks[::-1]
        click(browser, 6 + 1)  # stands for: as many rows as the rank, the most first
        assert column(browser, 0) == ranks[::-1]
        click(browser, 7)
        assert column(browser, 0) == ranks
        click(browser, 3)  # the model's guess, by name; what is equal stays in its order
        assert column(browser, 3) == ["cat"] * 10 + ["dog"] * 10 + ["owl"] * 10
        assert column(browser, 0)[:3] == ["3", "6", "9"]
        heads = "[...document.querySelectorAll('.questions thead th')].map((head) => head.getAttribute('aria-sort'))"
        assert browser.value(heads) == [None, None, None, "ascending", None, None, None, None, None]

    def test_rows_are_filtered(self, browser, page):
        browser.open(page)
        count = "document.getElementById('count').textContent"
        type_into(browser, "search", "NUMBER 17")
        assert column(browser, 0) == ["17"]
        assert browser.value(count) == "1 of 30 rows"
        type_into(browser, "search", "dog row-00")
        assert column(browser, 0) == ["1", "4", "7"]
        type_into(browser, "search", "")
        type_into(browser, "guess", "owl")
        assert column(browser, 0) == [str(rank) for rank in range(2, 31, 3)]
        type_into(browser, "guess", "")
        assert browser.value(count) == "30 of 30 rows"

    def test_of_many_rows_the_first_are_seen_and_all_are_printed(self, browser, tmp_path):
        questions = [Question(id=f"r{rank}", rank=rank, score=1.0, picked_by="Margin") for rank in range(1, 701)]
        write_page(tmp_path / "many.html", title="Many", questions=questions)
        browser.open(tmp_path / "many.html")
        shown = "[...document.querySelectorAll('.questions tbody tr')].filter((row) => row.offsetParent).length"
        count = "document.getElementById('count').textContent"
        assert browser.value(shown) == 300
        assert browser.value(count) == "700 of 700 rows, the first 300 shown"
        browser.value("document.getElementById('more').click()")
        assert browser.value(shown) == 600
        assert browser.value("document.getElementById('more').textContent") == "Show 100 more"
        click(browser, 0)  # the last are the first now
        assert browser.value(shown) == 300
        assert column(browser, 0)[0] == "700"
        type_into(browser, "search", "r69")
        assert browser.value(shown) == 11
        assert browser.value("document.getElementById('more').hidden")
        type_into(browser, "search", "")
        browser.call("Emulation.setEmulatedMedia", media="print")
        assert browser.value(shown) == 700

    def test_pictures_grow(self, browser, page):
        browser.open(page)
        width = "document.querySelector('.questions .picture').getBoundingClientRect().width"
        assert browser.value(width) == 104
        type_into(browser, "side", "200")
        assert browser.value(width) == 200

    def test_without_scripts_it_is_a_plain_table(self, browser, tmp_path):
        page, _ = write_rich_page(tmp_path, n=310, thumbnails=0)
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        try:
            browser.open(page)
            assert browser.value("document.querySelectorAll('.questions button').length") == 0
            assert browser.value("document.getElementById('controls').getBoundingClientRect().height") == 0
            shown = "[...document.querySelectorAll('.questions tbody tr')].filter((row) => row.offsetParent).length"
            assert browser.value(shown) == 310
        finally:
            browser.call("Emulation.setScriptExecutionDisabled", value=False)
