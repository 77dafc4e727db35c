"""What a browser makes of a report's page; skipped where there is none."""

import json

import pytest

from tests.report.browser import WHY_SKIPPED, Browser, find_browser
from tests.study import summaries
from tests.study.test_page_data import decode
from torchal.study.looks import common_baseline, looks, sampler_order
from torchal.study.numbers import amount, decimal, interval
from torchal.study.page import write_page
from torchal.study.page_data import Arrays
from torchal.study.summary import Estimate

pytestmark = pytest.mark.skipif(find_browser() is None, reason=WHY_SKIPPED)

# all charts are drawn by then that are near the window
SETTLED = "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))"
ROWS = "[...document.querySelectorAll('.results tbody tr')].filter((row) => row.offsetParent)"
LINES = "[...document.querySelectorAll('.plot')].map((plot) => plot.querySelectorAll('.line').length)"
LIVE = "document.getElementById('live').textContent"


@pytest.fixture(scope="module")
def browser():
    started = Browser(find_browser())
    yield started
    started.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    made = {}

    def path(kind):
        if kind not in made:
            made[kind] = folder / f"{kind}.html"
            write_page(made[kind], getattr(summaries, kind)())
        return made[kind]

    return path


@pytest.fixture(scope="module")
def summary():
    return summaries.rich()


@pytest.fixture
def rich(browser, page, summary):
    """Return the summary of the page that is open, all of whose charts are drawn."""
    browser.open(page("rich"), height=1600)
    browser.value(SETTLED)
    return summary


def texts(browser, column):
    """Return what is read in a column of the table, in the rows that are seen."""
    return browser.value(f"{ROWS}.map((row) => row.cells[{column}].firstChild.textContent)")


def choose(browser, menu, value):
    browser.value(f"menu = document.querySelector('{menu}'); menu.value = {json.dumps(value)}")
    browser.value("menu.dispatchEvent(new Event(menu.type === 'search' ? 'input' : 'change'))")


def press(browser, key):
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key)


def order_of(summary):
    return list(looks(sampler_order(summary), common_baseline(summary)))


class TestPage:
    @pytest.mark.parametrize("width", [1280, 400])
    @pytest.mark.parametrize("dark", [False, True])
    @pytest.mark.parametrize("kind", ["rich", "hostile", "minimal", "unfinished", "empty"])
    def test_fits_and_fetches_nothing_and_complains_of_nothing(self, browser, page, kind, width, dark):
        browser.open(page(kind), width=width, dark=dark, height=3000)
        browser.value(SETTLED)
        assert browser.value("innerWidth") == width
        assert browser.value("document.documentElement.scrollWidth") <= width
        wide = (
            "[...document.querySelectorAll('main section')].filter((one) => one.scrollWidth > one.clientWidth).length"
        )
        assert browser.value(wide) == 0
        assert all(browser.value("[...document.images].map((image) => image.complete && image.naturalWidth)"))
        addresses = [address for address in browser.requests() if not address.startswith("data:")]
        assert addresses == [page(kind).resolve().as_uri()]
        assert browser.complaints() == []
        assert browser.value("window.hacked") is None
        assert browser.value("[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.now'))")

    def test_what_is_seen_is_named_for_who_does_not_see(self, browser, page):
        browser.open(page("rich"))
        nameless = (
            "[...document.querySelectorAll('button, select, input, a, [tabindex]')].filter((one) => !(one.ariaLabel ||"
            " one.getAttribute('aria-labelledby') || one.textContent.trim() || one.labels?.length)).length"
        )
        assert browser.value(nameless) == 0

    def test_a_button_of_the_legend_hides_a_sampler_everywhere(self, browser, rich):
        hidden = order_of(rich).index("margin")
        buttons = "[...document.querySelectorAll('#samplers button[aria-pressed]')]"
        assert browser.value(f"{buttons}.map((button) => button.textContent)") == order_of(rich)
        assert browser.value(LINES) == [5, 5, 5, 5]
        assert "margin" in texts(browser, 1)
        seen = (
            f'[...document.querySelectorAll(\'main [data-s="{hidden}"], main [data-c="{hidden}"]\')]'
            ".filter((one) => one.getClientRects().length).length"
        )
        assert browser.value(seen) > 20
        browser.value(f"{buttons}[{hidden}].click()")
        pressed = [str(place != hidden).lower() for place in range(5)]
        assert browser.value(f"{buttons}.map((button) => button.getAttribute('aria-pressed'))") == pressed
        assert browser.value(LINES) == [4, 4, 4, 4]
        assert browser.value(seen) == 0
        assert "margin" not in texts(browser, 1)
        assert browser.value("document.getElementById('count').textContent") == "16 of 20 rows"
        browser.value(f"{buttons}[{hidden}].click()")
        assert browser.value(LINES) == [5, 5, 5, 5]
        assert browser.value("document.getElementById('count').textContent") == "20 of 20 rows"

    def test_all_are_hidden_and_shown(self, browser, rich):
        plain = "document.querySelectorAll('#samplers .plain')"
        browser.value(f"{plain}[1].click()")
        assert browser.value(LINES) == [0, 0, 0, 0]
        assert browser.value("document.querySelector('.plot').textContent") == "All samplers are hidden."
        assert texts(browser, 1) == []
        browser.value(f"{plain}[0].click()")
        assert browser.value(LINES) == [5, 5, 5, 5]
        assert browser.complaints() == []

    def test_the_menu_of_metrics_changes_curves_table_and_matrix(self, browser, rich):
        first = rich.experiments[0]
        choose(browser, "[data-control=metric]", "1")
        menus = "[...document.querySelectorAll('[data-control=metric]')].map((menu) => menu.value)"
        assert browser.value(menus) == ["1", "1", "1"]
        expected = [decimal(first.entries[sampler].final["log_loss"].mean) for sampler in first.ordered]
        assert texts(browser, 4)[:5] == expected
        assert browser.value("document.querySelector('.metric-name').textContent") == "log_loss"
        shown = "[...document.querySelectorAll('.of-metric')].map((part) => !part.hidden)"
        assert browser.value(shown) == [False, True, False]
        assert browser.value("document.querySelector('.plot .what').textContent") == "log_loss"
        assert browser.value("document.querySelectorAll('.plot .level').length") == 0
        choose(browser, "[data-control=metric]", "2")  # which one sampler of one experiment lacks
        assert browser.value(LINES) == [4, 5, 5, 5]
        assert "\N{EN DASH}" in texts(browser, 4)

    def test_the_script_writes_what_was_there_without_it(self, browser, page, rich):
        rows = "[...document.querySelectorAll('.results tbody tr')]"
        inside = rows + '.map((row) => row.innerHTML.replace(/ data-v="[^"]*"/g, \'\'))'
        for metric in "10":
            choose(browser, "[data-control=metric]", metric)
        scripted = browser.value(inside)
        costs = "document.querySelector('.costs').innerHTML"
        choose(browser, "#of", "2")
        other = browser.value(costs)
        choose(browser, "#of", "")
        again = browser.value(costs)
        assert other != again
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        try:
            browser.open(page("rich"))
            assert browser.value(inside) == scripted
            assert browser.value(costs) == again
            assert browser.value(LINES) == [5, 5, 5, 5]
            hidden = "[...document.querySelectorAll('.controls, .hint')].every((one) => !one.getClientRects().length)"
            assert browser.value(hidden)
            assert browser.value("document.querySelectorAll('button').length") == 0
        finally:
            browser.call("Emulation.setScriptExecutionDisabled", value=False)

    def test_columns_are_sorted_and_stay_so(self, browser, rich):
        heads = "document.querySelectorAll('.results thead button')"
        browser.value(f"{heads}[4].click()")
        values = [float(text) for text in texts(browser, 4)]
        assert values == sorted(values, reverse=True)
        browser.value(f"{heads}[4].click()")
        assert [float(text) for text in texts(browser, 4)] == values[::-1]
        choose(browser, "[data-control=metric]", "1")
        values = [float(text) for text in texts(browser, 4)]
        assert values == sorted(values)
        browser.value(f"{heads}[1].click()")
        assert browser.value(f"{ROWS}.map((row) => row.cells[1].textContent)") == sorted(summaries.SAMPLERS * 4)

    def test_rows_are_filtered(self, browser, rich):
        choose(browser, "#search", "MARGIN fashion")
        assert browser.value(f"{ROWS}.map((row) => row.cells[0].textContent)") == ["fashion_mnist, logistic"]
        choose(browser, "#search", "")
        choose(browser, "#which", "3")
        assert set(texts(browser, 0)) == {"letters, logistic"}
        assert browser.value("document.getElementById('count').textContent") == "5 of 20 rows"

    @pytest.mark.parametrize(("metric", "axis"), [(0, "labels"), (1, "cost"), (0, "seconds")])
    def test_values_are_read_by_keyboard(self, browser, rich, metric, axis):
        choose(browser, "[data-control=metric]", str(metric))
        choose(browser, "#axis", str(["labels", "cost", "seconds"].index(axis)))
        browser.value("document.querySelectorAll('.plot')[1].focus()")
        for key in ("ArrowRight", "ArrowRight", "End", "ArrowLeft", "Home", "PageDown", "ArrowLeft"):
            press(browser, key)
        said = browser.value(LIVE)
        entries = rich.experiments[1].entries
        bands = {sampler: entry.curves[rich.metrics[metric]][axis] for sampler, entry in entries.items()}
        arrays = Arrays()
        written = {sampler: decode(arrays.written[arrays.add(band.x, 5)]) for sampler, band in bands.items()}
        x = sorted({x for places in written.values() for x in places})[9]
        assert said.startswith(f"{amount(x)} {axis}: ")
        parts = said.split(": ", 1)[1].split("; ")
        means = []
        for part in parts:
            sampler, value, *_ = part.split(" ")
            band = bands[sampler]
            if "\N{ALMOST EQUAL TO}" in value:
                means.append(float(value.split("\u2009")[1]))
                continue
            place = written[sampler].index(x)
            read = Estimate(band.mean[place], band.lower[place], band.upper[place])
            assert part.startswith(f"{sampler} {decimal(read.mean)} [")
            ends = part.split("[")[1].rstrip("]").split(", ")
            assert list(map(float, ends)) == pytest.approx([read.lower, read.upper], abs=1.01e-4)
            assert len(ends[0]) == len(interval(read)) / 2 - 2
            means.append(read.mean)
        assert len(means) == 5 if axis != "seconds" else len(means) >= 1
        assert means == sorted(means, reverse=metric == 0)
        assert browser.value("document.getElementById('tip').hidden") is False
        press(browser, "Escape")
        assert browser.value("document.getElementById('tip').hidden") is True

    def test_values_are_read_by_mouse_and_finger(self, browser, rich):
        browser.value("document.querySelector('.plot').scrollIntoView({block: 'center'})")
        browser.value(SETTLED)
        edges = browser.value(
            "(({left, top, width, height}) => [left, top, width, height])("
            "document.querySelector('.plot').getBoundingClientRect())"
        )
        x, y = edges[0] + edges[2] - 14, edges[1] + edges[3] / 2
        tip = "document.getElementById('tip').textContent"
        best = rich.experiments[0].entries[rich.experiments[0].ordered[0]]
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        assert browser.value(tip).startswith("200 labels")
        assert decimal(best.curves["accuracy"]["labels"].mean[-1]) in browser.value(tip)
        assert browser.value("document.querySelectorAll('.plot')[0].querySelectorAll('.now .at').length") == 5
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=y)
        assert browser.value("document.getElementById('tip').hidden")
        browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
        try:
            finger = [{"x": edges[0] + 44, "y": y}]
            browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=finger)
            browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            assert browser.value(f"!document.getElementById('tip').hidden && {tip}").startswith("10 labels")
        finally:
            browser.call("Emulation.setTouchEmulationEnabled", enabled=False)

    def test_differences_to_the_baseline_are_drawn(self, browser, rich):
        choose(browser, "#minus", "1")
        assert browser.value("document.querySelector('.plot .what').textContent") == "accuracy, minus uniform"
        assert browser.value("document.querySelectorAll('.plot .band').length") == 0
        browser.value("document.querySelector('.plot').focus()")
        press(browser, "Home")
        entries = rich.experiments[0].entries
        first = {sampler: entry.curves["accuracy"]["labels"].mean[0] for sampler, entry in entries.items()}
        parts = dict(part.split(" ")[:2] for part in browser.value(LIVE).split(": ")[1].split("; "))
        assert parts["uniform"] == "0.0000"
        for sampler, mean in first.items():
            value = float(parts[sampler].replace("\N{MINUS SIGN}", "-"))
            assert value == pytest.approx(mean - first["uniform"], abs=1.2e-4)

    def test_what_was_picked_is_read_by_keyboard(self, browser, rich):
        heat = "document.querySelectorAll('.heat')[0]"
        browser.value(f"{heat}.scrollIntoView({{block: 'center'}})")
        browser.value(SETTLED)
        browser.value(f"{heat}.focus()")
        for key in ("ArrowRight", "ArrowDown"):
            press(browser, key)
        experiment = rich.experiments[0]
        entry = experiment.entries[experiment.ordered[0]]
        share = round(1000 * entry.classes[0][1] / sum(entry.classes[0])) / 10
        pool = 100 * experiment.pool_classes[1] / sum(experiment.pool_classes)
        said = f"10 labels, one: {share / 10:.1f} labels, {share:.1f} %; the pool has {pool:.1f} %"
        assert browser.value(LIVE) == said
        for _ in range(20):
            press(browser, "ArrowRight")
        assert browser.value(LIVE) == f"the pool, one: {pool:.1f} %"

    def test_charts_are_drawn_when_they_are_near(self, browser, tmp_path):
        write_page(tmp_path / "page.html", summaries.large(50, 3, 4))
        browser.open(tmp_path / "page.html", height=900)
        browser.value(SETTLED)
        drawn = "document.querySelectorAll('.plot .now').length"
        assert 3 <= browser.value(drawn) < 20
        assert browser.value("document.querySelectorAll('.plot').length") == 50
        browser.value("dispatchEvent(new Event('beforeprint'))")
        assert browser.value(drawn) == 50
        assert browser.complaints() == []

    def test_paper_is_white_and_has_no_controls(self, browser, page):
        browser.open(page("rich"), dark=True, media="print")
        assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.value("getComputedStyle(document.querySelector('.k0')).color") == "rgb(12, 81, 151)"
        seen = "[...document.querySelectorAll('.controls, .hint, nav')].some((one) => one.getClientRects().length)"
        assert browser.value(seen) is False
