import csv
import io
import re
import shutil
import subprocess

import pytest

from tests.study.runs import write_full_data, write_run, write_sweep
from tests.study.summaries import HOSTILE_NAMES, hostile, minimal, rich
from torchal.study.csv_files import comparisons_csv, curves_csv, results_csv
from torchal.study.latex import latex
from torchal.study.markdown import markdown
from torchal.study.reading import read_runs
from torchal.study.summing_up import Wanted, sum_up
from torchal.study.terminal import lines

SUMMARIES = {"rich": rich, "minimal": minimal, "hostile": hostile}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_sweep(root, samplers=("margin", "badge", "uniform"), data=("digits", "iris"), seeds=range(5))
    return sum_up(read_runs([root]), Wanted(title="A sweep", command="python -m experiments.report runs"))


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


class TestCsv:
    def test_has_every_number(self, sweep):
        rows = read_csv(results_csv(sweep))
        assert len(rows) == 2 * 3 * 2
        for row in rows:
            experiment = next(one for one in sweep.experiments if one.folder == row["folder"])
            entry = experiment.entries[row["sampler"]]
            area, final = entry.area[row["metric"]], entry.final[row["metric"]]
            assert [float(row[f"area{end}"]) for end in ("", "_lower", "_upper")] == pytest.approx(
                [area.mean, area.lower, area.upper], rel=1e-5
            )
            assert float(row["final"]) == pytest.approx(final.mean, rel=1e-5)
            found = entry.against.get(row["metric"])
            assert row["p_holm"] == ("" if found is None else f"{found.p_holm:.6g}")
            assert row["pairs"] == ("" if found is None else "5")
            assert (row["target"] != "") == (row["metric"] == "accuracy")

    def test_curves_and_comparisons(self, sweep):
        rows = read_csv(curves_csv(sweep))
        assert len(rows) == 2 * 3 * 2 * sum((3, 3, 3))
        row = next(row for row in rows if (row["sampler"], row["against"], row["x"]) == ("margin", "labels", "20"))
        band = sweep.experiments[0].entries["margin"].curves["accuracy"]["labels"]
        assert float(row["mean"]) == pytest.approx(band.mean[1], rel=1e-5)
        rows = read_csv(comparisons_csv(sweep))
        assert [(row["a"], row["b"]) for row in rows[:3]] == [(one.a, one.b) for one in sweep.comparisons["accuracy"]]

    @pytest.mark.parametrize("kind", SUMMARIES)
    def test_any_names(self, kind):
        summary = SUMMARIES[kind]()
        for row in read_csv(results_csv(summary)):
            assert any(row["sampler"] in one.entries for one in summary.experiments)


def tables_of(text):
    """Return the cells of each table in Markdown, split at bars that are not escaped."""
    tables, table = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif table:
            tables.append(table)
            table = []
    return tables


class TestMarkdown:
    def test_says_what_the_summary_says(self, sweep):
        text = markdown(sweep, pictures={"learning curves": "curves.png"})
        assert text.startswith("# A sweep\n\nOn 2 experiments, margin is ahead of uniform by +0.0")
        assert "![learning curves](curves.png)" in text
        assert "```bash\npython -m experiments.report runs\n```" in text
        heads, _, *rows = tables_of(text)[0]
        assert heads[:5] == ["sampler", "runs", "labels", "final accuracy", "area"]
        assert heads[5] == "area minus uniform"
        entry = sweep.experiments[0].entries["margin"]
        area = entry.area["accuracy"]
        assert rows[0][0] == "margin"
        assert rows[0][4] == f"{area.mean:.4f} [{area.lower:.4f}, {area.upper:.4f}]"
        assert rows[0][5].startswith("**+0.0")
        assert rows[0][6] == "20 (5 of 5 runs)"

    @pytest.mark.parametrize("kind", SUMMARIES)
    def test_tables_are_tables(self, kind):
        text = markdown(SUMMARIES[kind]())
        for heads, rule, *rows in tables_of(text):
            assert set(rule) == {"---"}
            assert all(len(row) == len(heads) == len(rule) for row in rows)

    def test_names_are_text(self):
        text = re.sub(r"(?s)(````*)bash\n.*\n\1\n", "", markdown(hostile()))  # without the command, in its fence
        assert not re.search(r"(?<!\\)<(script|b|/script)", text)
        assert "a,b\\|c\\\\d\\_e%f$g\\#h" in text
        assert len(HOSTILE_NAMES) > 3


def plain_tex(text):
    """Return LaTeX without what is escaped, so that what is left is syntax."""
    return re.sub(r"\\[\\&%$#_{}]", "", text)


class TestLatex:
    @pytest.mark.parametrize("kind", SUMMARIES)
    def test_its_syntax(self, kind):
        text = plain_tex(latex(SUMMARIES[kind]()))
        assert text.count("{") == text.count("}")
        assert text.count("$") % 2 == 0
        for name in ("table", "tabular"):
            assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}")
        for table in re.findall(r"\\toprule(.*?)\\bottomrule", latex(SUMMARIES[kind]()), re.DOTALL):
            rows = [row for row in re.split(r"\\\\\n", table.replace("\\midrule", "")) if row.strip()]
            counts = {len(re.findall(r"(?<!\\)&", row)) for row in rows}
            assert len(counts) == 1

    def test_says_what_the_summary_says(self, sweep):
        text = latex(sweep)
        area = sweep.experiments[0].entries["margin"].area["accuracy"]
        assert f"{area.mean:.4f} [{area.lower:.4f}, {area.upper:.4f}]" in text
        assert re.search(r"margin & 5 & .* & \$\\mathbf\{\+0\.0\d+", text)

    def test_a_baseline_with_signs_of_latex_in_it(self, tmp_path):
        for seed in range(2):
            for sampler in ("$x$ & a_b", "margin"):
                settings = {"names": {"data": "d", "model": "m", "sampler": sampler}}
                write_run(tmp_path, sampler=sampler, seed=seed, settings=settings)
        assert r"Area minus \$x\$ \& a\_b &" in latex(sum_up(read_runs([tmp_path]), Wanted(baseline="$x$ & a_b")))

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex, with booktabs")
    def test_compiles(self, sweep, tmp_path):
        odd = [name for name in HOSTILE_NAMES if name.isascii()] + ["[a]", "~^\\"]
        for seed in range(2):
            for name in odd:
                settings = {"names": {"data": "<d>", "model": "m_1 & co", "sampler": name}, "sampler": {"a": name}}
                write_run(tmp_path / "runs", sampler=f"s{odd.index(name)}", seed=seed, settings=settings)
        strange = sum_up(read_runs([tmp_path / "runs"]), Wanted(baseline=odd[0]))
        packages = "\\usepackage{booktabs}\\usepackage[landscape]{geometry}"
        body = latex(sweep) + latex(strange)
        (tmp_path / "t.tex").write_text(
            f"\\documentclass{{article}}{packages}\\begin{{document}}{body}\\end{{document}}"
        )
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
        assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")


class TestTerminal:
    def test_a_table_and_its_comparisons(self, sweep):
        told = list(lines(sweep, target="90% of full"))
        assert told[0] == "digits, logistic   accuracy with all training data: 0.8000"
        assert re.fullmatch(
            r"sampler +runs +final accuracy +mean area \[95 % interval\] +labels to 90% of full +s/run", told[1]
        )
        assert re.fullmatch(r"margin +5 +0\.\d{4} +0\.\d{4} \[0\.\d{4}, 0\.\d{4}\] +\d+ +\d\.\d\d", told[2])
        assert re.fullmatch(
            r"margin - uniform: area \+0\.\d{4} \[.+\], paired over 5 runs, p [=<] [\d.e-]+ \(Holm\)", told[5]
        )
        assert "" in told  # between the two experiments

    def test_labels_that_were_not_reached_and_runs_that_wait(self, tmp_path):
        write_run(tmp_path, sampler="uniform", values=(0.1, 0.2, 0.3))
        write_run(tmp_path, sampler="uniform", seed=1)
        write_run(tmp_path, sampler="uniform", seed=2, values=(0.1, 0.2), labels=(10, 20), finished=False,
                  settings={"schedule": {"budget": 40}})  # fmt: skip
        write_full_data(tmp_path)
        told = list(lines(sum_up(read_runs([tmp_path]))))
        assert "2 (+1)" in told[2]
        assert "40 (1 of 2 runs)" in told[2]
        assert told[-1] == "1 more run did not finish; the command that began it goes on with it"
