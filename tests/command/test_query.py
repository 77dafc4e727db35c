import csv
import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from torchal import BudgetError, DataError, functional, samplers
from torchal.command import main as command
from torchal.command import query as query_module
from torchal.command.main import main
from torchal.command.memory import Memory
from torchal.report.map import draw_map

DIGITS = load_digits()
N_ROWS = 300


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with digits as features, and the labels of sixty of them."""
    monkeypatch.chdir(tmp_path)
    picture = Image.new("RGB", (8, 8))
    monkeypatch.setattr(
        query_module, "draw_map", lambda *_, **__: picture
    )  # which has tests of its own, and takes time
    np.save("digits.npy", (DIGITS.data[:N_ROWS] / 16).astype("float32"))
    write_labels("labels.csv", range(60))
    return tmp_path


def write_labels(path, rows, *, changes=(), prefix=""):
    changes = dict(changes)
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label"])
        writer.writerows([f"{prefix}{row}", changes.get(row, f"digit {DIGITS.target[row]}")] for row in rows)


def query(*more, features="digits.npy", labels=("labels.csv",), budget=10, out="next.csv"):
    """Return the exit status of a query."""
    given_labels = ["--labels", *labels] if labels else []
    return main(["query", "--features", features, *given_labels, "--budget", str(budget), "--out", out, *more])


def rows_of(path="next.csv"):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ids_of(path="next.csv"):
    return [int(row["id"]) for row in rows_of(path)]


class TestAnswer:
    def test_what_is_asked_is_what_the_strategy_picks(self, folder):
        assert query("--strategy", "k_center") == 0
        features = torch.from_numpy(np.load("digits.npy"))
        labeled = torch.arange(N_ROWS) < 60
        picks = functional.k_center_greedy(features, 10, labeled=labeled)
        rows = rows_of()
        assert [int(row["id"]) for row in rows] == picks.indices.tolist()
        assert [int(row["rank"]) for row in rows] == list(range(1, 11))
        assert [float(row["score"]) for row in rows] == pytest.approx(picks.scores.tolist())
        assert {row["picked_by"] for row in rows} == {"k_center"}
        counts = functional.represents(features, picks.indices, among=~labeled).counts
        assert [int(row["represents"]) for row in rows] == counts.tolist()
        distances = torch.cdist(features[picks.indices].double(), features[:60].double()).min(1)
        assert [float(row["distance"]) for row in rows] == pytest.approx(distances.values.tolist(), rel=1e-5)
        assert [row["nearest_label"] for row in rows] == [
            f"digit {DIGITS.target[int(row['nearest_id'])]}" for row in rows
        ]
        assert all(row["label"] == "" for row in rows)

    def test_predictions_are_those_of_the_model(self, folder):
        assert query("--strategy", "margin", "--model", "naive_bayes") == 0
        from sklearn.naive_bayes import GaussianNB

        x = np.load("digits.npy")
        model = GaussianNB().fit(x[:60], DIGITS.target[:60])
        proba = model.predict_proba(x)
        two = np.sort(proba[60:], axis=1)[:, -2:]
        best = np.sort(two[:, 1] - two[:, 0])[:10]
        rows = rows_of()
        got = [np.sort(proba[int(row["id"])])[-2:] for row in rows]
        assert sorted(b - a for a, b in got) == pytest.approx(best, abs=1e-6)
        for row in rows:
            at = proba[int(row["id"])]
            assert row["predicted"] == f"digit {at.argmax()}"
            assert float(row["probability"]) == pytest.approx(at.max(), rel=1e-5)

    def test_a_map_a_page_and_a_folder_lie_beside_it(self, folder, monkeypatch, capsys):
        monkeypatch.setattr(query_module, "draw_map", draw_map)
        assert query() == 0
        assert {path.name for path in folder.iterdir()} >= {"next.csv", "next.png", "next.html", "next.torchal"}
        with Image.open("next.png") as picture:
            assert picture.size[0] >= 1000
        page = Path("next.html").read_text()
        assert "<title>digits.npy" in page
        assert "torchal query --features digits.npy" in page
        said = capsys.readouterr().out
        assert "10 rows picked by margin, of 300: 60 are labeled, and logistic was fitted on them." in said
        assert "Wrote next.csv, next.png, next.html, next.torchal." in said

    @pytest.mark.parametrize("labels", [None, range(1)], ids=["none", "of one class"])
    def test_without_labels_a_strategy_that_needs_no_model_is_chosen_and_said(self, folder, capsys, labels):
        if labels is not None:
            write_labels("labels.csv", labels)
        assert query("--strategy", "badge", labels=None if labels is None else ("labels.csv",)) == 0
        assert "badge reads a model, which takes two: typiclust picks" in capsys.readouterr().out
        assert {row["picked_by"] for row in rows_of()} == {"typiclust"}

    def test_parquet(self, folder):
        pandas = pytest.importorskip("pandas")
        assert query(out="next.parquet") == 0
        assert query() == 0
        assert pandas.read_parquet("next.parquet")["id"].tolist() == [str(row) for row in ids_of()]

    @pytest.mark.parametrize("out", ["next", "next.xlsx"])
    def test_a_table_of_another_kind_is_refused_before_anything_is_done(self, folder, out, capsys):
        assert query(out=out) == 2
        assert f"questions are written to .csv or .parquet, got '{out}'" in capsys.readouterr().err
        assert not list(Path().glob("next*"))

    def test_given_coordinates(self, folder):
        xy = np.arange(2 * N_ROWS).reshape(N_ROWS, 2)
        np.save("xy.npy", xy)
        assert query("--coordinates", "xy.npy") == 0
        assert [(float(row["x"]), float(row["y"])) for row in rows_of()] == [tuple(xy[row]) for row in ids_of()]
        np.save("xy.npy", xy[:5])
        assert query("--coordinates", "xy.npy") == 2

    def test_whole_numbers_are_features(self, folder):
        np.save("bytes.npy", DIGITS.data[:N_ROWS].astype("uint8"))
        np.save("floats.npy", DIGITS.data[:N_ROWS].astype("float32"))
        for name in ("bytes", "floats"):
            assert query("--strategy", "k_center", features=f"{name}.npy", out=f"{name}.csv") == 0
        assert ids_of("bytes.csv") == ids_of("floats.csv")


class TestGoingOn:
    def answer(self, path="next.csv"):
        """Fill in what was asked, as a person does."""
        rows = rows_of(path)
        for row in rows:
            row["label"] = f"digit {DIGITS.target[int(row['id'])]}"
        with Path("answered.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(reversed(rows))
        return [int(row["id"]) for row in rows]

    def test_the_same_command_says_the_same(self, folder):
        assert query() == 0
        first = {name: Path(name).read_bytes() for name in ("next.csv", "next.png", "next.html")}
        assert query() == 0
        assert {name: Path(name).read_bytes() for name in first} == first

    def test_with_more_labels_it_goes_on(self, folder, capsys):
        assert query() == 0
        asked = self.answer()
        assert query(labels=("labels.csv", "answered.csv")) == 0
        assert "70 are labeled" in capsys.readouterr().out
        again = ids_of()
        assert not set(again) & set(asked)
        # labels that were told are remembered, even where no file has them any more
        assert query(labels=()) == 0
        assert ids_of() == again
        x = np.load("digits.npy")
        model = LogisticRegression(C=1e6).fit(x[:60], DIGITS.target[:60])
        assert model.score(x, DIGITS.target[:N_ROWS]) > 0.5
        memory = Memory.load(Path("next.torchal"))
        assert len(memory.state["labeled"]) == 70
        assert [record["n_labeled"] for record in memory.history] == [60, 70]

    def test_labels_that_were_filled_in_where_they_were_asked_are_not_lost(self, folder):
        assert query() == 0
        asked = self.answer()
        Path("answered.csv").replace("next.csv")
        assert query() == 0
        assert not set(ids_of()) & set(asked)
        assert len(Memory.load(Path("next.torchal")).state["labeled"]) == 70

    @pytest.mark.parametrize("content", ["a,b\n1,2\n", "id,label\n1,digit 1\n", ""])
    def test_a_file_of_somebody_else_is_not_replaced(self, folder, capsys, content):
        Path("next.csv").write_text(content)
        assert query() == 2
        assert "next.csv is there already, and no answer of this command" in capsys.readouterr().err
        assert Path("next.csv").read_text() == content

    def test_labels_that_are_written_while_it_runs_are_not_replaced(self, folder, capsys, monkeypatch):
        assert query() == 0
        asked = self.answer()
        choose = query_module.map_coordinates

        def fill_in(*given, **more):
            shutil.copy("answered.csv", "next.csv")
            return choose(*given, **more)

        with monkeypatch.context() as patched:
            patched.setattr(query_module, "map_coordinates", fill_in)
            assert query() == 2
        assert "next.csv was written while this ran, and is left as it is" in capsys.readouterr().err
        assert query() == 0
        assert not set(ids_of()) & set(asked)

    def test_two_calls_at_once(self, folder, capsys):
        from torchal.command.memory import locked

        with locked(Path("next.torchal")):
            assert query() == 2
        assert "next.torchal is in use by another call" in capsys.readouterr().err
        assert not Path("next.torchal").exists()
        assert query() == 0

    def test_all_labels_lie_in_the_folder_too(self, folder, capsys):
        assert query() == 0
        asked = self.answer()
        Path("answered.csv").replace("next.csv")
        assert query() == 0
        again = ids_of()
        Path("next.torchal/labels.csv").replace("kept.csv")
        assert [int(row["id"]) for row in rows_of("kept.csv")] == sorted([*range(60), *asked])
        shutil.rmtree("next.torchal")
        assert query(labels=("kept.csv",)) == 0
        assert ids_of() == again

    def test_no_row_is_left(self, folder, capsys):
        write_labels("labels.csv", range(N_ROWS))
        assert query() == 2
        assert "no row is left to ask for: 300 of 300 are labeled" in capsys.readouterr().err

    def test_many_labels_are_corrected_and_given_to_rows_that_nobody_could_tell(self, folder):
        from torchal.command.labels import labels_of, tell
        from torchal.command.sources import read_features
        from torchal.exchange.answers import Answers

        source = read_features(Path("digits.npy"), ids=None, id_column=None)
        learner = query_module._learner(source, query_module.Request(1, Path("next.csv")), samplers.from_name("margin"))
        first = Answers(["0", "1", "2", "3"], ["a", "b", None, None], skipped=[False, False, True, True])
        assert tell(learner, source, labels_of(source, first, None), correct=False)
        then = Answers(["0", "1", "2", "3"], ["c", None, "d", None], skipped=[False, True, False, True])
        with pytest.raises(DataError, match=r"3 labels are not as they were told before: '1' was 'b', is None"):
            tell(learner, source, labels_of(source, then, None), correct=False)
        assert tell(learner, source, labels_of(source, then, None), correct=True)
        pool = learner.pool
        assert pool.labels.decode(pool.targets[[0, 2]]) == ["c", "d"]
        assert pool.skipped[[1, 3]].all()
        assert pool.n_labeled == 2
        assert not tell(learner, source, labels_of(source, then, None), correct=False)

    def test_is_what_one_run_with_all_labels_at_once_says(self, folder):
        assert query("--strategy", "k_center") == 0
        asked = self.answer()
        assert query("--strategy", "k_center", labels=("labels.csv", "answered.csv")) == 0
        write_labels("all.csv", [*range(60), *asked])
        assert query("--strategy", "k_center", labels=("all.csv",), out="other.csv") == 0
        assert ids_of() == ids_of("other.csv")

    @pytest.mark.parametrize("strategy", ["graph_density", "hierarchical", "cluster_margin", "switch"])
    def test_strategies_with_a_state(self, folder, strategy):
        assert query("--strategy", strategy) == 0
        asked = self.answer()
        assert query("--strategy", strategy, labels=("labels.csv", "answered.csv")) == 0
        assert not set(ids_of()) & set(asked)

    def test_another_strategy_goes_on_with_the_labels(self, folder, capsys):
        assert query("--strategy", "typiclust", labels=()) == 0
        asked = self.answer()
        assert query("--strategy", "margin", labels=("answered.csv",)) == 0
        assert "10 rows picked by margin, of 300: 10 are labeled" in capsys.readouterr().out
        assert not set(ids_of()) & set(asked)

    @pytest.mark.parametrize("more", [("--model", "naive_bayes"), ("--seed", "1"), ("--strategy", "entropy")])
    def test_another_model_or_seed_asks_anew(self, folder, more):
        assert query("--strategy", "badge") == 0
        first = ids_of()
        settings = more if "--strategy" in more else ("--strategy", "badge", *more)
        assert query(*settings) == 0
        again = ids_of()
        assert again != first
        assert query(*settings, out="other.csv") == 0
        assert again == ids_of("other.csv")

    def test_rows_that_nobody_answered_may_be_asked_again(self, folder):
        assert query("--strategy", "k_center") == 0
        asked = self.answer()
        rows = rows_of("answered.csv")[:-1]  # all but the one that was wanted most
        with Path("answered.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        assert query("--strategy", "k_center", labels=("labels.csv", "answered.csv")) == 0
        assert asked[0] in ids_of()

    @pytest.mark.parametrize("where", ["save", "write_questions", "write_atomically", "write_page"])
    @pytest.mark.parametrize("again", [False, True])
    def test_killed_in_the_middle_it_says_the_same_when_it_is_called_again(self, folder, monkeypatch, where, again):
        assert query(out="whole.csv") == 0
        if again:
            self.answer("whole.csv")
            assert query() == 0
            assert query(out="whole.csv", labels=("labels.csv", "answered.csv")) == 0
        labels = ("labels.csv", "answered.csv") if again else ("labels.csv",)

        def die(*_, **__):
            raise SystemExit(9)

        with monkeypatch.context() as patched:
            patched.setattr(Memory if where == "save" else query_module, where, die)
            with pytest.raises(SystemExit):
                query(labels=labels)
        assert query(labels=labels) == 0
        assert Path("next.csv").read_bytes() == Path("whole.csv").read_bytes()

    def test_rows_that_come_later(self, folder, capsys):
        assert query("--strategy", "k_center") == 0
        x = np.load("digits.npy")
        np.save("digits.npy", np.concatenate([x, DIGITS.data[N_ROWS:350].astype("float32")]))
        assert query("--strategy", "k_center", budget=11) == 0
        assert max(ids_of()) >= N_ROWS
        assert "of 350" in capsys.readouterr().out

    def test_whether_to_stop(self, folder, capsys):
        assert query("--stop", "--model", "naive_bayes") == 0
        said = capsys.readouterr().out
        assert "There are not two rounds yet" in said
        self.answer()
        assert query("--stop", "--model", "naive_bayes", labels=("labels.csv", "answered.csv")) == 0
        said = capsys.readouterr().out
        assert "by a kappa of 0." in said
        assert "The model's mean uncertainty is 0." in said
        assert "10 more labels are expected to raise the accuracy on such rows by" in said

    def test_where_no_label_is_predicted_wrong_little_is_known(self, folder, capsys):
        x = np.repeat(np.eye(2, dtype="float32"), 30, axis=0)
        np.save("digits.npy", np.concatenate([x, x]))
        Path("labels.csv").write_text("id,label\n" + "".join(f"{row},{row // 30}\n" for row in range(60)))
        assert query("--stop", "--model", "naive_bayes", "--strategy", "k_center") == 0
        said = capsys.readouterr().out
        assert "No label that was held out was predicted wrong. With 60 labels that says no more" in said
        assert "is below 0.049" in said
        assert "little speaks" not in said


class TestNumbers:
    """Programs of tables change how numbers are written."""

    def table(self, n_rows=40, **more):
        random = np.random.default_rng(0)
        columns = {"id": [f"{row:03d}" for row in range(n_rows)], "a": random.integers(100, size=n_rows)}
        return pytest.importorskip("pandas").DataFrame(columns | more)

    def query(self, *more, table="table.csv"):
        return main(["query", "--table", table, "--budget", "3", "--strategy", "k_center", *more, "--out", "next.csv"])

    def test_zeros_before_an_id_stay_and_one_that_lost_them_is_known(self, folder, capsys):
        self.table().to_csv("table.csv", index=False)
        assert self.query() == 0
        asked = [row["id"] for row in rows_of()]
        assert all(len(name) == 3 for name in asked)
        told = "".join(f"{int(name)},x,{name}\n" for name in asked)
        Path("next.csv").write_text(f"id,label,picked_by\n{told}")
        assert self.query() == 0
        assert f"ids of labels were taken for those of the same number, as '{int(asked[0])}'" in capsys.readouterr().out
        assert sorted(row["id"] for row in rows_of("next.torchal/labels.csv")) == sorted(asked)
        assert not {row["id"] for row in rows_of()} & set(asked)

    def test_a_label_is_the_one_of_the_same_number(self, folder, capsys):
        self.table(y=["01", "2"] * 5 + [""] * 30).to_csv("table.csv", index=False)
        assert self.query("--target", "y") == 0
        asked = [row["id"] for row in rows_of()]
        answered = "".join(f"{name},{label}\n" for name, label in zip(asked, ["1", "2.0", "x"], strict=True))
        Path("labels.csv").write_text(f"id,label\n{answered}")
        assert self.query("--target", "y", "--labels", "labels.csv") == 0
        assert "The label '1' is the same number as '01', and was taken for it." in capsys.readouterr().out
        told = {row["id"]: row["label"] for row in rows_of("next.torchal/labels.csv")}
        assert [told[name] for name in asked] == ["01", "2", "x"]

    def test_the_more_frequent_way_to_write_a_label_counts_and_classes_may_be_named(self, folder):
        from torchal.command.labels import labels_of
        from torchal.command.sources import read_features
        from torchal.exchange.answers import Answers

        source = read_features(Path("digits.npy"), ids=None, id_column=None)
        answers = Answers(["0", "1", "2.0"], ["1.0", "1", "1"])
        assert labels_of(source, answers, None) == {"0": "1", "1": "1", "2": "1"}
        assert labels_of(source, answers, ["1.0"]) == {"0": "1.0", "1": "1.0", "2": "1.0"}
        assert labels_of(source, answers, ["1", "1.0"]) == {"0": "1.0", "1": "1", "2": "1"}

    def test_labels_of_a_target_that_blanks_made_floats(self, folder):
        self.table(y=[0, 1] * 5 + [None] * 30).to_csv("table.csv", index=False)
        assert "1.0" in Path("table.csv").read_text()
        assert self.query("--target", "y") == 0
        assert {row["label"] for row in rows_of("next.torchal/labels.csv")} == {"0", "1"}

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_a_row_with_a_blank_that_is_added_changes_no_other(self, folder, kind, capsys):
        pandas = pytest.importorskip("pandas")
        table = self.table()
        getattr(table, f"to_{kind}")(f"table.{kind}", index=False)
        assert self.query(table=f"table.{kind}") == 0
        more = pandas.concat([table, pandas.DataFrame({"id": ["x"], "a": [None]})])
        more["a"] = more["a"].astype("float64" if kind == "parquet" else "Int64")
        getattr(more, f"to_{kind}")(f"table.{kind}", index=False)
        assert self.query(table=f"table.{kind}") == 0
        assert "Rows were added" in capsys.readouterr().out


class TestTables:
    def customers(self, n_rows=200):
        pandas = pytest.importorskip("pandas")
        random = np.random.default_rng(0)
        table = pandas.DataFrame(
            {
                "id": [f"c{row}" for row in range(n_rows)],
                "age": random.integers(18, 90, n_rows),
                "income": random.lognormal(8, 1, n_rows).round(2),
                "city": random.choice(["Rome", "Oslo", "Bern"], n_rows),
            }
        )
        table.loc[::9, "income"] = np.nan
        truth = np.where((table["age"] > 50) ^ (table["city"] == "Oslo"), "yes", "no")
        table["churn"] = [word if row < 40 else "" for row, word in enumerate(truth)]
        return table, truth

    def query(self, *more, table="customers.csv", budget=10):
        given_table = ["--table", table, "--target", "churn", "--model", "random_forest"]
        return main(
            ["query", *given_table, "--strategy", "margin", "--budget", str(budget), "--out", "next.csv", *more]
        )

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_a_target_with_blanks(self, tmp_path, monkeypatch, kind, capsys):
        monkeypatch.chdir(tmp_path)
        table, _ = self.customers()
        getattr(table, f"to_{kind}")(f"customers.{kind}", index=False)
        assert self.query(table=f"customers.{kind}") == 0
        said = capsys.readouterr().out
        assert "10 rows picked by margin, of 200: 40 are labeled, and random_forest was fitted on them." in said
        assert "Words made columns of 0 and 1: city." in said
        assert "Blanks became the median: income (23 rows)." in said
        rows = rows_of()
        assert all(row["id"].startswith("c") and int(row["id"][1:]) >= 40 for row in rows)
        assert {row["predicted"] for row in rows} <= {"yes", "no"}
        row = rows[0]
        told = dict(part.split(": ") for part in row["text"].split("; "))  # what a person needs to see of it
        of = table.set_index("id").loc[row["id"]]
        assert (int(told["age"]), told["city"]) == (of["age"], of["city"])
        assert "churn" not in told

    def test_words_that_stand_for_a_blank_and_numbers_that_are_names(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        table, _ = self.customers()
        table["age"] = [f"{age}" if row % 50 else "unknown" for row, age in enumerate(table["age"])]
        table["zip"] = 10_000 + np.arange(len(table)) % 3
        table["churn"] = table["churn"].replace("", "open")
        table.to_csv("customers.csv", index=False)
        assert self.query() == 2
        assert "say so by `missing`; if they are categories, by `categorical`" in capsys.readouterr().err
        assert self.query("--missing", "unknown,open", "--categorical", "zip") == 0
        said = capsys.readouterr().out
        assert "40 are labeled" in said
        assert "Blanks became the median: age (4 rows)." in said
        assert "Words made columns of 0 and 1: zip." in said
        assert self.query("--categorical", "street") == 2
        assert "no column is named 'street'" in capsys.readouterr().err

    def test_goes_on_as_the_target_is_filled_in(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        table, truth = self.customers()
        table.to_csv("customers.csv", index=False)
        assert self.query() == 0
        asked = [int(row["id"][1:]) for row in rows_of()]
        table.loc[asked, "churn"] = truth[asked]
        table.sample(frac=1, random_state=0).to_csv("customers.csv", index=False)  # in another order
        assert self.query() == 0
        assert not {int(row["id"][1:]) for row in rows_of()} & set(asked)

    def test_rows_that_have_changed_or_gone(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        table, _ = self.customers()
        table.to_csv("customers.csv", index=False)
        assert self.query() == 0
        before = Path("next.csv").read_bytes()
        changed = table.copy()
        changed.loc[7, "age"] = 11
        changed.to_csv("customers.csv", index=False)
        assert self.query() == 2
        assert (
            "1 of 200 rows are not as they were, the first is 'c7'; to begin anew, keep next."
            in capsys.readouterr().err
        )
        table.drop(index=[3, 4]).to_csv("customers.csv", index=False)
        assert self.query() == 2
        assert "2 of 200 rows of before are not there any more: 'c3', 'c4'" in capsys.readouterr().err
        assert Path("next.csv").read_bytes() == before

    def test_ids_must_differ(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        table, _ = self.customers()
        table.loc[5, "id"] = "c4"
        table.to_csv("customers.csv", index=False)
        assert self.query() == 2
        assert "ids in id must be distinct: 1 are not, as 'c4'" in capsys.readouterr().err


class TestTexts:
    TEXTS = [
        *("free prize, call now", "see you at noon", "win cash now, call", "lunch tomorrow at noon?"),
        *("claim your free prize", "the meeting moved to noon", "cash prize: reply now", "are you at home tomorrow"),
    ]

    def test_a_column_and_its_ids(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with Path("messages.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["key", "text"])
            writer.writerows([f"m{row}", f"{text}, {row}"] for row, text in enumerate(self.TEXTS * 5))
        with Path("labels.csv").open("w") as file:
            file.write("key;label\nm0;spam\nm1;ham\nm2;spam\nm3;ham\n")
        source = ["--texts", "messages.csv", "--column", "text", "--id", "key", "--labels", "labels.csv"]
        assert main(["query", *source, "--strategy", "cluster_margin", "--budget", "5", "--out", "next.csv"]) == 0
        rows = rows_of()
        assert all(row["text"].startswith(self.TEXTS[int(row["id"][1:]) % 8]) for row in rows)
        assert {row["nearest_label"] for row in rows} <= {"ham", "spam"}

    def filled_in(self):
        """Answer two of the three rows of the table; return them all."""
        rows = rows_of()
        for row, label in zip(rows, ("ham", "spam", ""), strict=True):
            row["label"] = label
        with Path("next.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return rows

    def test_a_budget_of_0_takes_labels_in_and_leaves_the_table(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        Path("messages.txt").write_text("\n".join(self.TEXTS))
        source = ["query", "--texts", "messages.txt", "--out", "next.csv", "--classes", "ham,spam"]
        assert main([*source, "--budget", "3"]) == 0
        rows = self.filled_in()
        table = Path("next.csv").read_bytes()
        for _ in range(2):
            assert main([*source, "--budget", "0"]) == 0
            assert "2 of 8 rows are labeled; 1 wait for an answer." in capsys.readouterr().out
            assert Path("next.csv").read_bytes() == table
            with Path("next.torchal", "labels.csv").open() as file:
                told = {row["id"]: row["label"] for row in csv.DictReader(file)}
            assert told == {rows[0]["id"]: "ham", rows[1]["id"]: "spam"}
        assert main([*source, "--budget", "0", "--stop"]) == 2
        assert "--budget 0 asks for none" in capsys.readouterr().err
        assert main([*source, "--budget", "2"]) == 0
        assert not {row["id"] for row in rows_of()} & set(told)

    def asked_and_told(self):
        """Write 40 messages, ask for 3 of them, and answer 2."""
        kinds = [*["spam", "ham"] * 4, *[""] * 32]
        with Path("messages.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "text", "kind"), *zip(range(40), self.TEXTS * 5, kinds, strict=True)])
        source = ["query", "--texts", "messages.csv", "--column", "text", "--target", "kind", "--out", "next.csv"]
        assert main([*source, "--budget", "3"]) == 0
        rows = self.filled_in()
        return source, [row["id"] for row in rows[:2]]

    def test_who_asks_behind_a_budget_of_0_is_asked_anew(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        source, told = self.asked_and_told()
        for _ in range(2):
            assert main([*source, "--budget", "0"]) == 0
        assert main([*source, "--budget", "3"]) == 0
        found = [row["id"] for row in rows_of()]
        assert len(found) == 3
        assert not {*found} & {*told}
        assert main([*source, "--budget", "0"]) == 0
        assert main([*source, "--budget", "3"]) == 0
        assert [row["id"] for row in rows_of()] == found, "nothing was told in between"

    def test_a_budget_of_0_by_another_strategy_leaves_that_of_before(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        source, _ = self.asked_and_told()
        assert main([*source, "--budget", "0", "--strategy", "badge"]) == 0
        for strategy in ("margin", "badge", "margin"):
            assert main([*source, "--budget", "3", "--strategy", strategy]) == 0, capsys.readouterr().err
            assert {row["picked_by"] for row in rows_of()} == {strategy}

    @pytest.mark.parametrize("column", ["text", "id"])
    def test_labels_in_the_column_of_something_else(self, column, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        with Path("messages.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "text"), *enumerate(self.TEXTS)])
        source = ["query", "--texts", "messages.csv", "--column", "text", "--target", column]
        assert main([*source, "--budget", "3", "--out", "next.csv"]) == 2
        assert (
            f"--target is to be a column of its own, and {column} has the texts or the ids" in capsys.readouterr().err
        )

    def test_a_column_with_the_labels(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        texts, kinds = [*self.TEXTS * 5, " "], [*["spam", "ham", "", "NA"] * 10, "spam"]
        with Path("messages.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "text", "kind"), *zip(range(41), texts, kinds, strict=True)])
        source = ["query", "--texts", "messages.csv", "--column", "text", "--target", "kind", "--budget", "5"]
        assert main([*source, "--out", "next.csv"]) == 0
        assert "Left out: 1 of 41 texts, which are empty." in capsys.readouterr().out
        assert {row["nearest_label"] for row in rows_of()} <= {"ham", "spam"}
        assert all(int(row["id"]) % 4 > 1 for row in rows_of()), "those without a label"
        with Path("next.torchal", "labels.csv").open() as file:
            told = {row["id"]: row["label"] for row in csv.DictReader(file)}
        assert told == {str(row): kinds[row] for row in range(40) if row % 4 < 2}

    def test_lines_have_no_column(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        Path("messages.txt").write_text("\n".join(self.TEXTS))
        assert main(["query", "--texts", "messages.txt", "--target", "y", "--budget", "3", "--out", "next.csv"]) == 2
        assert "--target is a column, and messages.txt has lines" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["messages.csv", "messages.txt"])
    def test_another_encoding(self, tmp_path, monkeypatch, capsys, name):
        monkeypatch.chdir(tmp_path)
        head = "text\n" if name.endswith("csv") else ""
        lines = [f"caf\u00e9 {text.replace(',', '')}" for text in self.TEXTS]
        Path(name).write_text(head + "\n".join(lines), encoding="cp1252")
        source = ["query", "--texts", name, "--budget", "3", "--out", "next.csv"]
        assert main(source) == 2
        assert "utf-8" in capsys.readouterr().err.lower()
        assert main([*source, "--encoding", "cp1252"]) == 0
        assert all(row["text"].startswith("caf\u00e9") for row in rows_of())
        assert main([*source, "--encoding", "klingon"]) == 2

    def test_lines_of_a_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("messages.txt").write_text("\n".join(self.TEXTS))
        assert main(["query", "--texts", "messages.txt", "--budget", "3", "--out", "next.csv"]) == 0
        assert [row["text"] for row in rows_of()] == [self.TEXTS[int(row["id"])] for row in rows_of()]

    def test_lines_without_text_are_not_asked_for_and_are_counted(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        Path("messages.txt").write_text("one two\n\nthree\u2028four\n  \r\nfive six\n\n", encoding="utf-8")
        Path("labels.csv").write_text("id,label\n1,x\n0,x\n")
        source = ["--texts", "messages.txt", "--labels", "labels.csv"]
        assert main(["query", *source, "--budget", "2", "--out", "next.csv"]) == 0
        assert {row["id"]: row["text"] for row in rows_of()} == {"2": "three\u2028four", "4": "five six"}
        assert "Left out: 3 of 6 texts, which are empty." in capsys.readouterr().out


class TestImages:
    @pytest.fixture
    def photos(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "photos" / "deep").mkdir(parents=True)
        for number, pixels in enumerate(DIGITS.images[:30]):
            picture = Image.fromarray((pixels * 15).astype("uint8")).resize((24, 24))
            picture.save(tmp_path / "photos" / ("deep" if number % 2 else "") / f"{number:02d}.png")
        return tmp_path

    def query(self, *more):
        source = ["--images", "photos", "--size", "16", "--strategy", "typiclust", "--budget", "5"]
        return main(["query", *source, *more, "--out", "next.csv"])

    def features(self):
        files = Path("next.torchal").glob("images-*.npy")
        (path,) = [path for path in files if ".logits" not in path.suffixes]
        return np.load(path)

    @pytest.mark.parametrize("how", ["script", "export"])
    def test_a_saved_module(self, photos, how):
        pytest.importorskip("torchvision")
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
        if how == "script":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of newer versions of torch: people have such files
                torch.jit.script(module).save("net.pt")
        else:
            batch = torch.export.Dim("batch", min=1, max=1024)
            torch.export.save(
                torch.export.export(module, (torch.rand(2, 3, 16, 16),), dynamic_shapes=[{0: batch}]), "net.pt"
            )
        assert self.query("--weights", "net.pt") == 0
        rows = rows_of()
        assert len(rows) == 5
        assert all((photos / "photos" / row["id"]).is_file() for row in rows)
        assert Path("next.html").read_text().count("data:image") >= 5
        first = Path("next.csv").read_bytes()
        assert self.query("--weights", "net.pt") == 0
        assert Path("next.csv").read_bytes() == first

    def test_pixels_as_they_are_and_as_those_of_imagenet(self, photos):
        pytest.importorskip("torchvision")
        torch.manual_seed(0)
        pixels = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten())  # what it gets, on average
        batch = torch.export.Dim("batch", min=1, max=1024)
        program = torch.export.export(pixels, (torch.rand(2, 3, 16, 16),), dynamic_shapes=[{0: batch}])
        torch.export.save(program, "net.pt2")
        found = {}
        for how in ("none", "imagenet"):
            assert self.query("--weights", "net.pt2", "--normalize", how) == 0
            found[how] = self.features()
            shutil.rmtree("next.torchal")
            Path("next.csv").unlink()
        assert found["none"].min() >= 0
        assert found["none"].max() <= 1
        assert np.ptp(found["none"], axis=1).max() < 1e-6, "grey has three alike channels"
        expected = (found["none"] - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(found["imagenet"], expected, rtol=1e-4, atol=1e-4)

    def test_other_features_of_the_same_images_are_refused_in_words(self, photos, capsys):
        torchvision = pytest.importorskip("torchvision")
        torch.manual_seed(0)
        torch.save(torchvision.models.resnet18(weights=None).state_dict(), "net.pt")
        assert self.query("--weights", "net.pt", "--backbone", "resnet18") == 0
        before = Path("next.csv").read_bytes()
        assert self.query("--weights", "net.pt", "--backbone", "resnet18", "--normalize", "none") == 2
        assert "but what is computed of them is not: give what was given before" in capsys.readouterr().err
        assert Path("next.csv").read_bytes() == before

    def test_a_network_that_refuses_the_images(self, photos, capsys):
        pytest.importorskip("torchvision")
        flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
        torch.export.save(torch.export.export(flat, (torch.rand(2, 3, 16, 16),)), "net.pt2")
        assert self.query("--weights", "net.pt2") == 2
        told = capsys.readouterr().err
        assert "net.pt2 refused " in told
        assert "images of 3 x 16 x 16" in told
        assert "dynamic_shapes" in told
        assert not Path("next.csv").exists()

    def test_a_network_that_answers_with_no_tensor(self, photos, capsys):
        pytest.importorskip("torchvision")

        class Two(torch.nn.Module):
            def forward(self, images):
                return images.mean((2, 3)), images

        batch = torch.export.Dim("batch", min=1, max=1024)
        program = torch.export.export(Two(), (torch.rand(2, 3, 16, 16),), dynamic_shapes=[{0: batch}])
        torch.export.save(program, "net.pt2")
        assert self.query("--weights", "net.pt2") == 2
        told = capsys.readouterr().err
        assert "net.pt2 is to answer " in told
        assert "and answered with a tuple" in told

    @pytest.mark.filterwarnings("ignore:The default weight initialization of inception_v3")
    @pytest.mark.parametrize(("backbone", "size", "width"), [("resnet18", 16, 512), ("inception_v3", 75, 2048)])
    def test_weights_of_a_network_with_classes_of_its_own(self, backbone, size, width, photos):
        torchvision = pytest.importorskip("torchvision")
        torch.manual_seed(0)
        more = {"init_weights": False} if backbone == "inception_v3" else {}  # they take long
        network = torchvision.models.get_model(backbone, weights=None, num_classes=7, **more)
        torch.save(network.state_dict(), "net.pt")
        assert self.query("--weights", "net.pt", "--backbone", backbone, "--size", str(size)) == 0
        assert self.features().shape == (30, width)

    def test_weights_with_hidden_layers_of_another_width(self, photos, capsys):
        torchvision = pytest.importorskip("torchvision")
        network = torchvision.models.mobilenet_v3_small(weights=None)
        state = network.state_dict()
        state["classifier.0.weight"], state["classifier.0.bias"] = torch.zeros(5, 576), torch.zeros(5)
        state["classifier.3.weight"] = torch.zeros(1000, 5)
        torch.save(state, "net.pt")
        assert self.query("--weights", "net.pt", "--backbone", "mobilenet_v3_small") == 2
        assert "net.pt has no weights of mobilenet_v3_small" in capsys.readouterr().err

    def test_weights_of_torchvision(self, photos, capsys):
        torchvision = pytest.importorskip("torchvision")
        torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), "net.pt")
        assert self.query("--weights", "net.pt", "--backbone", "resnet18") == 2
        assert "net.pt has no weights of resnet18" in capsys.readouterr().err
        assert self.query("--weights", "net.pt") == 2
        assert "a module neither of torch.export nor of TorchScript" in capsys.readouterr().err
        torch.save(torchvision.models.resnet18(weights=None).state_dict(), "net.pt")
        assert self.query("--weights", "net.pt", "--backbone", "resnet18") == 0


class TestTools:
    @pytest.fixture
    def messages(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(query_module, "draw_map", lambda *_, **__: Image.new("RGB", (8, 8)))
        with Path("messages.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text"])
            writer.writerows([f"m{row}", f"{text}, {row}"] for row, text in enumerate(TestTexts.TEXTS * 5))
        return tmp_path

    def query(self, *more):
        source = ["--texts", "messages.csv", "--column", "text", "--classes", "ham,spam", "--budget", "4"]
        return main(["query", *source, *more, "--out", "next.csv"])

    def test_label_studio_there_and_back(self, messages):
        assert self.query("--format", "label-studio") == 0
        tasks = json.loads(Path("next.label-studio.json").read_text())
        asked = [row["id"] for row in rows_of()]
        assert [task["data"]["row_id"] for task in tasks] == asked
        for number, task in enumerate(tasks):
            choice = {"from_name": "label", "to_name": "item", "type": "choices"}
            choice["value"] = {"choices": [("ham", "spam")[number % 2]]}
            task |= {"id": number, "annotations": [{"id": number, "result": [choice], "completed_by": 1}]}
        Path("export.json").write_text(json.dumps(tasks))
        assert self.query("--labels", "export.json") == 0
        assert len(Memory.load(Path("next.torchal")).state["labeled"]) == 4
        assert not {row["id"] for row in rows_of()} & set(asked)

    @pytest.mark.parametrize("tool", ["argilla", "hugging-face"])
    def test_others_for_texts(self, messages, tool):
        if tool == "hugging-face":
            pytest.importorskip("pyarrow")
        assert self.query("--format", tool) == 0
        assert any(
            path.name.startswith("next.") and path.suffix in {".jsonl", ".dataset"} for path in messages.iterdir()
        )

    @pytest.mark.parametrize("tool", ["coco", "cvat"])
    def test_tools_for_images_refuse_texts_and_what_was_asked_is_kept(self, messages, capsys, tool):
        assert self.query("--format", tool) == 2
        assert "image" in capsys.readouterr().err
        assert Path("next.csv").exists()

    def test_classes_must_be_known(self, messages, capsys):
        source = ["--texts", "messages.csv", "--column", "text", "--budget", "4", "--format", "label-studio"]
        assert main(["query", *source, "--out", "next.csv"]) == 2
        assert "label-studio is told the classes, and no label has named one yet" in capsys.readouterr().err


class TestBadInput:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (
                "id,label\n0,a\n300,b\n",
                "1 of 2 ids of the labels are none of the 300 rows: '300'; ids are the numbers",
            ),
            ("id,label\n-1,a\nx,b\n", "2 of 2 ids of the labels are none of the 300 rows: '-1', 'x'"),
            ("id,label\n0,a\n0,b\n", "the id '0' has the label 'a' in line 2, and 'b' in line 3"),
            ("row,label\n0,a\n", "id"),
            ("", "is empty"),
            ("id,label\n1,spam\n2,spam\n3,spma\n4,ham\n5,ham\n", "one row has the label 'spma', and 2 have 'spam'"),
        ],
        ids=["out of range", "unknown", "twice", "no column", "empty", "a slip of the pen"],
    )
    def test_of_labels(self, folder, capsys, content, words):
        Path("labels.csv").write_text(content)
        assert query() == 2
        assert words in capsys.readouterr().err
        assert not Path("next.csv").exists()
        assert not Path("next.torchal").exists()

    def test_a_label_that_is_another_now(self, folder, capsys):
        assert query() == 0
        before = Path("next.csv").read_bytes()
        write_labels("labels.csv", range(60), changes={7: "digit 1"})
        assert query() == 2
        words = "1 labels are not as they were told before: '7' was 'digit 7', is 'digit 1'. If these correct"
        assert words in capsys.readouterr().err
        assert Path("next.csv").read_bytes() == before
        assert query("--correct") == 0
        assert query() == 0

    def test_features_that_have_changed(self, folder, capsys):
        assert query() == 0
        x = np.load("digits.npy")
        x[250] += 1
        np.save("digits.npy", x)
        assert query() == 2
        assert (
            "the features are not those of before, though as many rows; to begin anew, keep" in capsys.readouterr().err
        )
        np.save("digits.npy", x[:200])
        assert query() == 2
        assert "100 of 300 rows of before are not there any more: '200'" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (["--strategy", "marign"], "no sampler is named 'marign'; there are"),
            (["--model", "forest"], "no model is named 'forest'; there are logistic"),
            (["--strategy", "bandit_mixture"], "looks at the score on a validation part"),
            (["--strategy", "bald"], "needs a model with sample_log_probs"),
            (["--strategy", "alfa_mix", "--model", "random_forest"], "needs a model with last_layer"),
            (["--classes", "a,b"], "10 labels are none of the 2 classes"),
            (["--column", "text"], "--column is about --texts, and the rows are --features"),
            (["--target", "y"], "--target is about --table and --texts, and the rows are --features"),
            (["--normalize", "none"], "--normalize is about --images, and the rows are --features"),
            (["--budget", "241"], "asked for 241 rows, 240 can be picked"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else None,
    )
    def test_of_settings(self, folder, capsys, more, words):
        assert query(*more) == 2
        assert words in capsys.readouterr().err
        assert not Path("next.torchal").exists()

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda path: None, "there is no file other.npy"),
            (lambda path: path.write_bytes(b"no numbers"), "is no .npy file of numbers"),
            (lambda path: np.save(path, np.zeros(5)), "got float64 of shape (5,)"),
            (lambda path: np.save(path, np.array([["a"]])), "got <U1 of shape (1, 1)"),
            (lambda path: np.save(path, np.array([[0.0], [np.nan]])), "1 of 2 rows are not, the first is row 1"),
        ],
        ids=["missing", "no npy", "a column", "text", "nan"],
    )
    def test_of_features(self, folder, capsys, make, words):
        make(Path("other.npy"))
        assert query(features="other.npy") == 2
        assert words in capsys.readouterr().err

    def test_a_damaged_memory(self, folder, capsys):
        assert query() == 0
        Path("next.torchal/state.pt").write_bytes(b"no")
        assert query() == 2
        assert "state.pt is damaged" in capsys.readouterr().err
        shutil.rmtree("next.torchal")
        assert query() == 0

    @given(
        content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: f"id,label\n{text}".encode()))
    )
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_bytes_as_labels_are_read_or_refused(self, folder, content):
        Path("labels.csv").write_bytes(content)
        assert labels_only() in (0, 2)


def labels_only():
    """Return 0 where the labels can be read, 2 where they are refused: what stands between a file and a query."""
    options = command._parser().parse_args(
        ["query", "--features", "digits.npy", "--labels", "labels.csv", "--budget", "1", "--out", "next.csv"]
    )
    source = command._source(options, Path("next.torchal"))
    try:
        query_module.labels_of(source, command._answers(options), None)
    except DataError:
        return 2
    return 0


class TestSuggest:
    @pytest.mark.parametrize(
        ("labels", "budget", "first"),
        [(0, 10, "typiclust"), (30, 10, "switch"), (60, 10, "typiclust"), (250, 10, "margin"), (200, 60, "badge")],
    )
    def test_names_strategies_with_reason_and_cost(self, folder, capsys, labels, budget, first):
        write_labels("labels.csv", range(labels))
        given_labels = ["--labels", "labels.csv"] if labels else []
        assert main(["suggest", "--features", "digits.npy", *given_labels, "--budget", str(budget)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3
        assert re.match(rf"1\. {first} \(about \d+\.\d s\): ", lines[0])
        assert not Path("next.torchal").exists()

    def test_a_rare_class(self, folder, capsys):
        write_labels(
            "labels.csv",
            range(200),
            changes={row: "common" for row in range(200) if DIGITS.target[row] != 3 or row > 60},
        )
        assert main(["suggest", "--features", "digits.npy", "--labels", "labels.csv", "--budget", "10"]) == 0
        assert "class_balanced" in capsys.readouterr().out


def test_errors_of_a_query_are_those_of_the_library(folder):
    from torchal.command.query import Request
    from torchal.command.sources import read_features

    source = read_features(Path("digits.npy"), ids=None, id_column=None)
    with pytest.raises(BudgetError, match="asked for 301 rows, 300 can be picked"):
        query_module.query(source, None, Request(budget=301, out=Path("next.csv"), strategy="k_center"))
