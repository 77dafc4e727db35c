import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.pages import HOSTILE, read_page
from tests.report.test_page import POLICY
from tests.study import summaries
from torchal.errors import DataError
from torchal.report.markup import clean
from torchal.study.numbers import NOTHING, amount, decimal, interval, signed
from torchal.study.page import write_page
from torchal.study.page_script import SCRIPT
from torchal.study.page_style import CSS
from torchal.study.summary import Example, Penalties, Problem, Summary
from torchal.study.svg import shorten

KINDS = {
    "rich": summaries.rich,
    "minimal": summaries.minimal,
    "unfinished": summaries.unfinished,
    "hostile": summaries.hostile,
    "30 samplers": lambda: summaries.make_summary(
        data=("a",), samplers=tuple(f"s{i}" for i in range(30)), metrics=("accuracy",), n_runs=3, n_points=3
    ),
    "100 classes": lambda: summaries.make_summary(data=("a",), n_points=3, class_names=tuple(map(str, range(100)))),
    "one round": lambda: summaries.make_summary(data=("a",), n_points=1, n_runs=2),
    "empty": summaries.empty,
    "no runs": lambda: Summary("t", "", "", ["accuracy"], [], [], {}, None, None, [], [], [], [], []),
}


def page_of(tmp_path, summary):
    path = tmp_path / "page.html"
    write_page(path, summary)
    return read_page(path)


def rows_of(page):
    """Return the rows of the table of results, as cells by the heads above them."""
    table = page.one("table", kind="results")
    heads = [head.text for head in table.one("thead").all("th")]
    rows = [[cell for cell in row.children if not isinstance(cell, str)] for row in table.one("tbody").all("tr")]
    assert all(len(row) == len(heads) for row in rows)
    return [dict(zip(heads, row, strict=True)) for row in rows]


def changed(summary, **values):
    """Return a summary of one experiment of which some things are different in its first entry."""
    entries = summary.experiments[0].entries
    first = next(iter(entries))
    entries[first] = replace(entries[first], **values)
    return summary


class TestWritePage:
    @pytest.mark.parametrize("kind", KINDS)
    def test_fetches_nothing_and_runs_nothing_but_its_own_script(self, tmp_path, kind):
        page = page_of(tmp_path, KINDS[kind]())
        script, *data = page.all("script")
        assert script.text.strip() == SCRIPT.strip()
        assert [one.attributes["type"] for one in data] == (
            [] if kind in ("empty", "no runs") else ["application/json"]
        )
        assert page.one("style").text.strip() == CSS.strip()
        assert page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"] == POLICY
        addresses = [
            element.attributes[name]
            for element in page.all()
            for name in ("src", "href", "srcset", "data", "action", "poster")
            if name in element.attributes
        ]
        assert all(address.startswith(("data:", "#")) for address in addresses)
        ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
        assert len(ids) == len(set(ids))
        assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)
        assert not [name for element in page.all() for name in element.attributes if name.startswith("on")]
        assert not {"iframe", "object", "embed", "form", "base"} & {element.tag for element in page.all()}
        assert not re.search(r"url\(|@import|@font-face", CSS)

    def test_the_same_summary_makes_the_same_bytes(self, tmp_path):
        for name in "ab":
            write_page(tmp_path / name / "page.html", summaries.rich())
        assert (tmp_path / "a/page.html").read_bytes() == (tmp_path / "b/page.html").read_bytes()
        assert [file.name for file in Path(tmp_path, "a").iterdir()] == ["page.html"]

    def test_says_whatever_it_was_told(self, tmp_path):
        summary = summaries.hostile()
        page = page_of(tmp_path, summary)
        assert page.one("head").one("title").text == page.one("h1").text == summary.title
        data = json.loads(page.one("script", type="application/json").text)
        assert sorted(data["samplers"]) == sorted(summaries.HOSTILE_NAMES)
        assert [one["name"] for one in data["experiments"]] == [one.name for one in summary.experiments]
        told = {element.attributes.get("title") for element in page.one("section", id="table").all("bdi")}
        texts = {element.text for element in page.one("section", id="table").all("bdi")}
        for name in summaries.HOSTILE_NAMES:
            assert (told if shorten(name, 24) != name else texts) >= {name}
        made = page.one("section", id="made").text
        for said in (*summary.notes, *summary.versions, *summary.unfinished, *summary.missing, summary.command):
            assert HOSTILE in said
            assert said in made

    @settings(deadline=None, max_examples=20)
    @given(text=st.text(st.characters(exclude_categories=[]), max_size=120))
    def test_any_text_is_read_as_it_is(self, tmp_path_factory, text):
        summary = summaries.make_summary(
            data=(text, "b"), samplers=("uniform", text + "!"), metrics=(text + "?",), axes=("labels",), n_runs=2
        )
        summary = replace(summary, title=text, command=text, notes=[text], problems=[Problem(text, text)])
        page = page_of(tmp_path_factory.getbasetemp(), summary)
        assert page.one("h1").text == clean(text)
        data = json.loads(page.one("script", type="application/json").text)
        assert clean(text + "!") in data["samplers"]
        assert data["metrics"] == [clean(text + "?")]
        assert len(page.all("script")) == 2

    def test_the_table_says_what_the_summary_says(self, tmp_path):
        summary = summaries.rich()
        metric = summary.metric
        rows = iter(rows_of(page_of(tmp_path, summary)))
        for experiment in summary.experiments:
            for sampler in experiment.ordered:
                row, entry = next(rows), experiment.entries[sampler]
                assert row["Experiment"].text == experiment.name
                assert row["Sampler"].text == sampler
                unfinished = f"{entry.unfinished} unfinished" if entry.unfinished else ""
                assert row["Runs"].text == f"{entry.runs}{unfinished}"
                for head, of in (("Final", entry.final), ("Area", entry.area)):
                    assert row[head].text == decimal(of[metric].mean) + interval(of[metric])
                if sampler == experiment.baseline:
                    assert row["Verdict"].text == "baseline"
                else:
                    against = entry.against[metric]
                    difference = against.difference
                    told = signed(difference.mean) + interval(difference, signed)
                    assert row["Area minusbaseline"].text == told
                    word = {1: "better", -1: "worse", 0: "not significant"}[against.verdict]
                    assert word in row["Verdict"].text
                reached = entry.reached
                told = f"{amount(reached.median)}{reached.reached} of {reached.runs} to {decimal(reached.target)}"
                assert row["Labels totarget"].text == told
                assert row["Seconds"].text == amount(sum(entry.seconds.values()))
        assert next(rows, None) is None

    def test_the_matrix_is_antisymmetric_and_has_all_pairs(self, tmp_path):
        summary = summaries.rich()
        page = page_of(tmp_path, summary)
        for place, metric in enumerate(summary.metrics):
            table = page.one("div", kind="of-metric", **{"data-m": str(place)}).one("table")
            names = [head.text for head in table.one("thead").all("bdi")]
            cells = {
                (row.one("th").text, column): cell
                for row in table.one("tbody").all("tr")
                for column, cell in zip(names, row.all("td"), strict=True)
            }
            for one in summary.comparisons[metric]:
                there, back = cells[one.a, one.b], cells[one.b, one.a]
                assert signed(one.difference.mean) in there.text
                assert signed(-one.difference.mean) in back.text
                assert f"{one.wins} / {one.ties} / {one.losses}" in there.text
                assert f"{one.losses} / {one.ties} / {one.wins}" in back.text
                assert there.attributes["class"] == f"v{one.verdict}"
                assert back.attributes["class"] == f"v{-one.verdict}"

    def test_a_p_value_is_rounded_once(self, tmp_path):
        summary = summaries.rich()
        experiment = summary.experiments[0]
        sampler = next(name for name, entry in experiment.entries.items() if entry.against)
        entry = experiment.entries[sampler]
        found = {name: replace(one, p_holm=0.22481) for name, one in entry.against.items()}
        entries = {**experiment.entries, sampler: replace(entry, against=found)}
        summary = replace(summary, experiments=[replace(experiment, entries=entries)])
        assert "p = 0.22" in page_of(tmp_path, summary).one("table", kind="results").text
        assert "p = 0.23" not in page_of(tmp_path, summary).one("table", kind="results").text

    def test_penalties_stand_where_they_belong(self, tmp_path):
        summary = summaries.rich()
        table = page_of(tmp_path, summary).all("table", kind="matrix")[-1]
        names = [head.text for head in table.one("thead").all("bdi")]
        assert sorted(names) == sorted(summary.penalties.samplers)
        *rows, means = table.one("tbody").all("tr")
        given = summary.penalties
        for row in rows:
            i = given.samplers.index(row.one("th").text)
            for column, cell in zip(names, row.all("td"), strict=True):
                j = given.samplers.index(column)
                assert cell.text == ("" if i == j else f"{given.matrix[i][j]:.2f}")
        for column, cell in zip(names, means.all("td"), strict=True):
            j = given.samplers.index(column)
            rest = [row[j] for i, row in enumerate(given.matrix) if i != j]
            assert cell.text == f"{sum(rest) / len(rest) / given.experiments:.2f}"

    def test_a_sampler_of_few_experiments_is_not_the_better_for_it(self, tmp_path):
        summary = summaries.rich()
        names = summary.penalties.samplers[:3]
        matrix, compared = [[0.0, 1.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]], [[0, 4, 1], [4, 0, 0], [1, 0, 0]]
        summary = replace(summary, penalties=Penalties(names, matrix, 4, compared))
        table = page_of(tmp_path, summary).all("table", kind="matrix")[-1]
        order = [head.text for head in table.one("thead").all("bdi")]
        *rows, means = table.one("tbody").all("tr")
        cells = {row.one("th").text: dict(zip(order, row.all("td"), strict=True)) for row in rows}
        assert cells[names[1]][names[2]].text == NOTHING
        shown = dict(zip(order, (cell.text for cell in means.all("td")), strict=True))
        assert (shown[names[1]], shown[names[2]]) == ("0.25", "0.50")

    def test_says_first_what_is_wrong(self, tmp_path):
        summary = replace(summaries.rich(), problems=[Problem(f"runs/{i}", "no JSON") for i in range(9)])
        box = page_of(tmp_path, summary).one("section", kind="warnings")
        items = [item.text for item in box.all("li")]
        assert items[0] == "runs/0 could not be read: no JSON"
        assert items[5] == "4 further folders could not be read"
        assert items[6].startswith("2 runs are not finished, and no mean of the results has them: runs/digits")
        told = "Not all samplers have the same runs: digits, logistic: badge has no run of seed 3. All of it"
        assert items[7] == told
        assert not page_of(tmp_path, summaries.minimal()).all("section", kind="warnings")

    def test_one_run_has_no_intervals_and_nothing_is_compared(self, tmp_path):
        page = page_of(tmp_path, summaries.minimal())
        (row,) = rows_of(page)
        assert not row["Final"].all("small")
        assert "There are no intervals" in page.one("section", id="curves").text
        assert "need at least two experiments" in page.one("section", id="wins").text
        assert not page.all("path", kind="band")
        assert not page.all("section", id="picked")

    def test_without_finished_runs_there_are_curves_and_no_values(self, tmp_path):
        page = page_of(tmp_path, summaries.unfinished())
        assert page.one("p", kind="answer").text == "No run is finished yet."
        for row in rows_of(page):
            assert row["Final"].text == row["Area"].text == "\N{EN DASH}"
        assert page.one("section", id="curves").all("path", kind="line")

    def test_classes_beyond_thirty_are_one(self, tmp_path):
        page = page_of(tmp_path, KINDS["100 classes"]())
        data = json.loads(page.one("script", type="application/json").text)
        (experiment,) = data["experiments"]
        # the pool has the more rows of a class the higher its number is
        assert experiment["classes"] == [*map(str, range(71, 100)), "others"]
        for entry in experiment["entries"]:
            for _, *shares in entry["rounds"]:
                assert len(shares) == 30
                assert sum(shares) == pytest.approx(1000, abs=15)

    def test_much_is_not_too_large(self, tmp_path):
        write_page(tmp_path / "large.html", summaries.large())
        assert (tmp_path / "large.html").stat().st_size < 5e6

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"classes": [[1.0, 2.0]], "class_labels": [3.0]}, "classes must be of 4 classes, got 2"),
            ({"classes": [], "class_labels": [3.0]}, "as many rounds as class_labels, got 0 and 1"),
            ({"sampler": "badge"}, "the entry must be of that sampler, got one of 'badge'"),
            ({"first": [Example("a", "https://example.com/x.png")]}, "a picture must be a data:image/ address"),
        ],
    )
    def test_refuses_what_contradicts_itself(self, tmp_path, values, message):
        with pytest.raises(DataError, match=message):
            write_page(tmp_path / "page.html", changed(summaries.make_summary(data=("a",), n_points=2), **values))
        assert not list(tmp_path.iterdir())

    def test_refuses_curves_and_pools_of_other_lengths(self, tmp_path):
        summary = summaries.make_summary(data=("a",), n_points=3)
        summary.experiments[0].entries["uniform"].curves["accuracy"]["labels"].mean.pop()
        with pytest.raises(DataError, match=r"equally many x, mean, lower and upper, got 3, 2, 3, 3"):
            write_page(tmp_path / "page.html", summary)
        summary = summaries.make_summary(data=("a",), n_points=3)
        summary.experiments[0].pool_classes.append(1)
        with pytest.raises(DataError, match=r"pool_classes must be of 4 classes, got 5"):
            write_page(tmp_path / "page.html", summary)
