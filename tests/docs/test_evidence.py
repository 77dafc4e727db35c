"""What the page on choosing says is what the tables say."""

import csv
import math
import re

import pytest
from make_pages import choosing, evidence

from benchmarks import cost
from tests.report.browser import WHY_SKIPPED, Browser, find_browser
from torchal import samplers

DATA = choosing.data()


def test_counts_are_those_below_the_published_tables():
    said = evidence.verdicts()
    assert (said["linear"]["margin"].better, said["linear"]["margin"].worse, said["linear"]["margin"].sets) == (
        19,
        1,
        37,
    )
    assert (said["first"]["k_center"].better, said["first"]["k_center"].worse) == (0, 2)
    assert (said["network"]["badge"].better, said["copies"]["badge"].better) == (3, 1)
    assert (said["rare"]["similar"].better, said["rare"]["similar"].worse) == (1, 3)


# the last rows of the other pages count over more than one of the studies here
@pytest.mark.parametrize("key", ["first", "linear", "rare", "texts"])
def test_the_last_rows_of_a_study_count_the_same(key):
    study = evidence.STUDIES[key]
    page = (evidence.RESULTS / f"{study.page}.md").read_text()
    head = next(line for line in page.splitlines() if line.startswith("| data |"))
    names = [name.strip() for name in head.strip("|").split("|")]
    found = evidence.verdicts()[key]
    for word in ("better", "worse"):
        line = next(line for line in page.splitlines() if line.startswith(f"| {word} |"))
        counts = dict(zip(names, [cell.strip() for cell in line.strip("|").split("|")], strict=True))
        for name, count in counts.items():
            if count.isdigit():
                assert getattr(found[evidence._strategy(name)], word) == int(count)


def test_intervals_are_between_the_deciles():
    for key in evidence.STUDIES:
        median, low, high = evidence.half_widths(key)
        assert 0 < low <= median <= high < 0.3


def test_every_strategy_with_a_verdict_or_a_cost_is_one():
    names = set(samplers.names())
    assert set(evidence.costs()) <= names
    assert {name for found in evidence.verdicts().values() for name in found} <= names
    assert set(DATA["strategies"]) == names


def test_the_formula_by_hand():
    one = cost.Cost(0.5, 2.0, (1.0, 0.5, 0.0, 2.0))
    assert one.at(cost.BASE) == 2.5
    assert one.at(cost.Size(16_000, 256, 30, 100)) == 0.5 + 2 * 2 * 2 * 4


def test_the_form_has_the_formula_of_the_benchmark(page):
    shown(page, rows=100_000, columns=64, classes=10, picks=50, labels=200, model="logistic", seconds=1000)
    told = page.value("document.querySelector('tr[data-name=typiclust]').cells[2].textContent")
    expected = evidence.costs()["typiclust"].at(cost.BASE._replace(rows=100_000))
    assert float(told.removeprefix("about ")) == pytest.approx(expected, rel=0.5)  # told in one digit


def test_a_formula_is_found_again():
    wanted = cost.Cost(0.01, 0.2, (1.0, 0.5, 0.0, 0.3))
    found = cost.fit(cost.SIZES, [wanted.at(size) for size in cost.SIZES])
    assert found.at(cost.CHECK) == pytest.approx(wanted.at(cost.CHECK), rel=0.02)


def test_most_formulas_say_what_is_measured_elsewhere():
    off = evidence.how_far_off()
    assert len(off) > 30
    assert sum(0.5 < one < 2 for one in off) > 0.9 * len(off)


def test_the_committed_table_of_costs_is_whole():
    with evidence.COSTS.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == cost.FIELDS
    assert all(math.isfinite(float(line["seconds"])) for line in lines)
    for name, one in evidence.costs().items():
        assert max(one.powers) <= cost.MOST_POWER, f"{name}: the program that fits leaves such out"


def test_without_a_script_the_table_is_whole():
    form = choosing.form()
    assert len(re.findall(r"<tr data-name=", form)) == len(samplers.names())
    assert "above uniform on 19 of 37, below on 1" in form


@pytest.fixture(scope="module")
def browser():
    path = find_browser()
    if path is None:
        pytest.skip(WHY_SKIPPED)
    browser = Browser(path)
    yield browser
    browser.close()


@pytest.fixture
def page(browser, tmp_path):
    (tmp_path / "_static").mkdir()
    script = evidence.ROOT / "docs" / "_static" / "choosing.js"
    (tmp_path / "_static" / "choosing.js").write_text(script.read_text())
    (tmp_path / "page.html").write_text(f"<!doctype html><html lang='en'><body>{choosing.form()}</body></html>")
    browser.open(tmp_path / "page.html")
    assert browser.complaints() == []
    return browser


def shown(browser, **values):
    """Return the names that the form leaves once these values are given, in order."""
    for name, value in values.items():
        browser.value(f"document.forms[0].elements['{name}'].value = '{value}'")
    browser.value("document.forms[0].dispatchEvent(new Event('input'))")
    rows = "[...document.querySelectorAll('#choosing-table tbody tr')].filter((row) => !row.hidden)"
    return browser.value(f"{rows}.map((row) => row.dataset.name)")


def test_with_many_labels_and_a_linear_model_margin_is_near_the_top(page):
    names = shown(page, labels=200, classes=10, model="logistic")
    assert {"margin", "informative_diverse"} <= set(names[:4])
    assert "bald" not in names
    assert names.index("uniform") < names.index("graph_density")


def test_before_any_label_only_what_reads_no_model_is_left(page):
    names = shown(page, labels=0, model="none")
    assert {"typiclust", "max_herding", "facility_location"} <= set(names[:6])
    assert {"margin", "badge", "entropy"}.isdisjoint(names)
    assert names[-1] == "k_center"  # below uniform on two of four


def test_what_takes_longer_is_left_out(page):
    many = shown(page, labels=0, model="none", rows=1_000_000, seconds=10_000_000)
    few = shown(page, labels=0, model="none", rows=1_000_000, seconds=60)
    assert set(few) < set(many)
    assert "graph_density" not in few


def test_a_posterior_brings_what_needs_draws(page):
    assert {"bald", "power_bald"} <= set(shown(page, model="posterior", labels=200))
    told = page.value("document.getElementById('choosing-said').textContent")
    assert told.startswith("Begin with ")


def check(browser, name):
    browser.value(f"document.forms[0].elements['{name}'].checked = true")


def test_of_near_copies_what_was_good_with_them_comes_first(page):
    check(page, "copies")
    names = shown(page, model="posterior", labels=200)
    assert set(names[:2]) == {"badge", "batch_bald"}
    told = page.value("document.getElementById('choosing-said').textContent")
    assert "Margin" not in told.partition(",")[0]
    assert names[-1] == "bald"


def test_a_switch_is_not_praised_for_what_its_first_member_did(page):
    before, after = (shown(page, labels=labels, classes=10, model="logistic") for labels in (20, 80))
    assert before.index("switch") < before.index("uniform") < after.index("switch")


def test_what_was_not_measured_is_told(page):
    shown(page, rows=1_000_000, labels=200, model="logistic", seconds=1000)
    cell = "document.querySelector('tr[data-name=k_center]').cells[2].textContent"
    assert page.value(cell).endswith("extrapolated")
    shown(page, rows=100_000)
    assert page.value(cell).startswith("about 0.")
    assert "extrapolated" not in page.value(cell)


def test_nonsense_is_told(page):
    shown(page, classes=1)
    assert "at least two classes" in page.value("document.getElementById('choosing-said').textContent")
