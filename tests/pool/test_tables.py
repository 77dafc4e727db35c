from copy import deepcopy

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import torchal
from torchal import ActiveLearner, CapabilityError, DataError, Pool, ShapeError, TableInputs, TorchClassifier
from torchal.samplers import Badge, Entropy, GraphDensity, KCenterGreedy, Margin, TypiClust

GENERATOR = torch.Generator().manual_seed(0)


def numbers(n_rows=60):
    x = np.random.default_rng(0).normal(size=(n_rows, 3))
    return x, (x[:, 0] + x[:, 1] > 0).astype(int)


def customers(n_rows=60):
    """A table as people have it: text, numbers, blanks, and an index that says nothing about places."""
    x, y = numbers(n_rows)
    table = pd.DataFrame({"age": x[:, 0], "income": x[:, 1], "city": np.where(x[:, 2] > 0, "Rome", "Oslo")})
    table.index = [5] * n_rows
    return table, np.where(y == 1, "stays", "leaves")


def pipeline(*, sparse=False):
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "income"]), ("words", OneHotEncoder(sparse_output=sparse), ["city"])],
        sparse_threshold=1.0 if sparse else 0.0,
    )
    return make_pipeline(columns, LogisticRegression())


TABLES = {
    "pandas": lambda t: t,
    "polars": pl.from_pandas,
    "arrow": lambda t: pa.Table.from_pandas(t.reset_index(drop=True)),
}


def loop(learner, truth, n_rounds=3):
    """Return what a learner asks for."""
    start = list(range(6))
    learner.tell(start, [truth[row] for row in start])
    asked = []
    for _ in range(n_rounds):
        rows = learner.ask(5)
        asked.append(rows.tolist())
        learner.tell(rows, [truth[row] for row in rows.tolist()])
    return asked


class TestColumns:
    @pytest.mark.parametrize("make", TABLES.values(), ids=TABLES.keys())
    def test_picks_are_those_on_the_plain_arrays(self, make):
        table, truth = customers()
        plain = np.column_stack([table["age"], table["income"], table["city"] == "Oslo", table["city"] == "Rome"])
        model = make_pipeline(
            ColumnTransformer([("numbers", StandardScaler(), [0, 1])], remainder="passthrough"), LogisticRegression()
        )
        for sampler in (Margin(), Entropy()):
            of_table = ActiveLearner(pipeline(), sampler, Pool.unlabeled(make(table), classes=["leaves", "stays"]))
            of_array = ActiveLearner(model, sampler, Pool.unlabeled(plain, n_classes=2))
            codes = (truth == "stays").astype(int)
            assert loop(of_table, truth) == loop(of_array, codes)
            assert of_table.predict()[:5] == [("leaves", "stays")[c] for c in of_array.predict()[:5]]

    @pytest.mark.parametrize("make", TABLES.values(), ids=TABLES.keys())
    @pytest.mark.parametrize("sampler", [Margin(), KCenterGreedy(), GraphDensity(), TypiClust()], ids=repr)
    def test_a_table_of_numbers_is_as_good_as_an_array(self, make, sampler):
        x, y = numbers()
        table = pd.DataFrame(x, columns=["a", "b", "c"], index=np.arange(60)[::-1])
        of_table, of_array = (
            ActiveLearner(LogisticRegression(), deepcopy(sampler), Pool.unlabeled(inputs, n_classes=2))
            for inputs in (make(table), x)
        )
        assert loop(of_table, y) == loop(of_array, y)

    def test_a_network_reads_the_numbers(self):
        x, y = numbers()
        table = pd.DataFrame(x.astype("float32"), columns=list("abc"))
        model = TorchClassifier(epochs=2)
        of_table = ActiveLearner(model, Badge(), Pool.unlabeled(table, n_classes=2))
        of_array = ActiveLearner(model, Badge(), Pool.unlabeled(x.astype("float32"), n_classes=2))
        assert loop(of_table, y, 1) == loop(of_array, y, 1)
        words = r"1 of 3 columns are no numbers: city; take a Pipeline"
        with pytest.raises(CapabilityError, match=words):
            ActiveLearner(model, Margin(), Pool.unlabeled(customers()[0], n_classes=2))

    @pytest.mark.parametrize("wrap", [lambda m: m, lambda m: GridSearchCV(m, {"logisticregression__C": [1.0]}, cv=2)])
    def test_distances_are_of_what_the_pipeline_makes_of_words(self, wrap):
        table, truth = customers()
        learner = ActiveLearner(wrap(pipeline()), KCenterGreedy(), Pool.unlabeled(table))
        learner.tell(range(12), truth[:12])
        rows = learner.ask(5)
        made = pipeline()[:-1].fit(table[:12]).transform(table)
        features = torch.from_numpy(made)
        labeled = torch.arange(60) < 12
        assert rows.equal(torchal.functional.k_center_greedy(features, 5, labeled=labeled).indices)
        view = learner.pool.view(learner.model, generator=GENERATOR)
        assert view.features_from == "embedding"
        assert view.features_at(TableInputs(table[:2])).equal(features[:2])

    def test_sparse_rows_of_a_pipeline_have_no_distances(self):
        table, truth = customers()
        learner = ActiveLearner(pipeline(sparse=True), KCenterGreedy(), Pool.unlabeled(table))
        learner.tell(range(6), truth[:6])
        with pytest.raises(CapabilityError, match=r"the pipeline makes sparse rows of shape \(60, 4\).*TruncatedSVD"):
            learner.ask(5)

    def test_before_there_is_a_model_rows_are_drawn_at_random(self):
        learner = ActiveLearner(pipeline(), TypiClust(), Pool.unlabeled(customers()[0]))
        assert len(learner.ask(5).unique()) == 5

    def test_a_sampler_that_reads_the_inputs_says_that_they_are_no_numbers(self):
        table, truth = customers()
        learner = ActiveLearner(pipeline(), GraphDensity(), Pool.unlabeled(table))
        learner.tell(range(6), truth[:6])
        with pytest.raises(CapabilityError, match="1 of 3 columns are no numbers: city"):
            learner.ask(5)


class TestTexts:
    TEXTS = [
        "free prize now",
        "see you at noon",
        "call this number",
        "lunch tomorrow",
        "you have won",
        "meeting moved",
    ] * 5
    LABELS = ["spam", "ham"] * 15

    @pytest.mark.parametrize(
        "make",
        [list, tuple, np.array, lambda t: np.array(t, dtype=object), pd.Series, pl.Series, pa.array],
        ids=["list", "tuple", "U", "object", "pandas", "polars", "arrow"],
    )
    def test_a_column_of_texts(self, make):
        learner = ActiveLearner(
            make_pipeline(CountVectorizer(), LogisticRegression()), Margin(), Pool.unlabeled(make(self.TEXTS))
        )
        asked = loop(learner, self.LABELS, 1)
        counts = CountVectorizer().fit(self.TEXTS[:6]).transform(self.TEXTS)
        plain = ActiveLearner(LogisticRegression(), Margin(), Pool.unlabeled(counts, n_classes=2))
        assert asked == loop(plain, [int(label == "ham") for label in self.LABELS], 1)

    def test_distances_between_texts(self):
        model = make_pipeline(TfidfVectorizer(), TruncatedSVD(2, random_state=0), LogisticRegression())
        learner = ActiveLearner(model, KCenterGreedy(), Pool.unlabeled(self.TEXTS))
        learner.tell(range(6), self.LABELS[:6])
        with pytest.warns(UserWarning, match="every candidate lies on a centre"):
            assert len(learner.ask(2)) == 2


class TestMissing:
    def blanks(self):
        x, y = numbers()
        x[::7, 1] = np.nan
        return x, y

    @pytest.mark.parametrize(
        "model",
        [make_pipeline(SimpleImputer(), LogisticRegression()), HistGradientBoostingClassifier(min_samples_leaf=2)],
        ids=["pipeline", "trees"],
    )
    def test_are_taken_where_the_model_takes_them(self, model):
        x, y = self.blanks()
        for inputs in (x, torch.from_numpy(x), pd.DataFrame(x)):
            learner = ActiveLearner(model, Margin(), Pool.unlabeled(inputs, n_classes=2))
            assert all(len(rows) == 5 for rows in loop(learner, y, 1))

    @pytest.mark.parametrize("model", [LogisticRegression(), TorchClassifier(epochs=1)], ids=["sklearn", "torch"])
    def test_are_refused_at_the_door_where_it_does_not(self, model):
        x, _ = self.blanks()
        for inputs in (x, torch.from_numpy(x)):
            with pytest.raises(DataError, match="inputs must be finite: 9 of 60 rows are not, the first is row 0"):
                ActiveLearner(model, Margin(), Pool.unlabeled(inputs, n_classes=2))

    def test_have_no_distances(self):
        x, y = self.blanks()
        learner = ActiveLearner(
            make_pipeline(SimpleImputer(), LogisticRegression()), KCenterGreedy(), Pool.unlabeled(x, n_classes=2)
        )
        with pytest.raises(DataError, match="features must be finite: 9 of 60 rows"):
            loop(learner, y, 1)


class TestTableInputs:
    def test_rows_by_place(self):
        table, _ = customers(5)
        rows = TableInputs(table)[torch.tensor([3, 0])].table
        assert rows["city"].tolist() == [table["city"].iloc[3], table["city"].iloc[0]]
        assert TableInputs(table)[1:3].table.equals(table.iloc[1:3])

    @pytest.mark.parametrize(
        ("table", "error", "words"),
        [
            (pd.DataFrame(index=[0, 1]), DataError, r"at least one column, got shape \(2, 0\)"),
            (pd.Series([1.0, 2.0]), ShapeError, r"a column of float64 of shape \(2,\); one feature is x.to_frame"),
            (pl.Series([1.0, 2.0]), ShapeError, "one feature is"),
            (3, DataError, "a table is of pandas, Polars or Arrow, or texts in a list, got int"),
        ],
        ids=["no columns", "pandas", "polars", "int"],
    )
    def test_what_is_none(self, table, error, words):
        with pytest.raises(error, match=words):
            TableInputs(table)

    def test_numbers(self):
        table = pd.DataFrame({"a": [1, 2], "b": [0.5, 0.25], "c": [True, False]})
        assert TableInputs(table).numbers().tolist() == [[1.0, 0.5, 1.0], [2.0, 0.25, 0.0]]
        blanks = pd.DataFrame({"a": pd.array([1, None], dtype="Int64")})
        assert TableInputs(blanks).numbers().isnan().tolist() == [[False], [True]]
        assert TableInputs(pl.DataFrame({"a": [1, None], "b": [0.5, 1.0]})).numbers()[1].isnan().tolist() == [
            True,
            False,
        ]
        with pytest.raises(CapabilityError, match="1 of 1 columns are no numbers: the texts"):
            TableInputs(["a", "b"]).numbers()
        with pytest.raises(CapabilityError, match="a table is no array"):
            np.asarray(TableInputs(table))

    def test_a_pool_knows_its_table_again(self):
        table, _ = customers()
        pool = Pool.unlabeled(table)
        assert pool.fingerprint() == Pool.unlabeled(table.copy()).fingerprint()
        other = table.copy()
        other.iloc[4, 0] = 1e9
        assert pool.fingerprint() != Pool.unlabeled(other).fingerprint()
        assert pool.fingerprint() != Pool.unlabeled(table.rename(columns={"age": "years"})).fingerprint()

    @pytest.mark.parametrize("column", [lambda table: table, lambda table: table["city"]], ids=["table", "column"])
    @pytest.mark.parametrize("make", [lambda table: table, pl.from_pandas, lambda t: t.to_numpy(object)])
    def test_other_rows_behind_them(self, make, column):
        table = column(customers()[0])
        both = TableInputs(make(table[:40])).joined(TableInputs(make(table[40:])))
        assert Pool.unlabeled(both).fingerprint() == Pool.unlabeled(make(table)).fingerprint()

    def test_only_rows_of_the_same_columns(self):
        table, _ = customers()
        with pytest.raises(DataError, match="the columns age, income, city, the new ones a DataFrame with age, city"):
            TableInputs(table).joined(TableInputs(table[["age", "city"]]))

    @pytest.mark.parametrize("make", [pd.Series, pl.Series, pd.Index])
    def test_what_was_given_stays_as_it_is(self, make):
        texts = make(["a", "b"])
        assert TableInputs(texts).joined(TableInputs(make(["c"]))).table.to_list() == ["a", "b", "c"]
        assert len(texts) == 2

    @pytest.mark.parametrize("library", [pd, pl])
    def test_a_column_of_numbers_is_joined_by_numbers_only(self, library):
        table = library.DataFrame({"a": [1, 2], "b": ["x", "y"]})
        whole = TableInputs(table).joined(TableInputs(library.DataFrame({"a": [0.5], "b": ["z"]})))
        assert whole.table["a"].to_list() == [1.0, 2.0, 0.5]
        assert whole.other_columns == ["b"]
        with pytest.raises(DataError, match=r"1 columns differ in kind: a is (int64|Int64) in the pool and"):
            TableInputs(table).joined(TableInputs(library.DataFrame({"a": ["1"], "b": ["z"]})))

    def test_rows_that_polars_cannot_stack(self):
        dates = pl.DataFrame({"a": ["2026-01-01"]}).with_columns(pl.col("a").str.to_date())
        with pytest.raises(DataError, match=r"cannot be one table"):
            TableInputs(dates).joined(TableInputs(pl.DataFrame({"a": [[1, 2]]})))

    @pytest.mark.parametrize("column", [lambda table: table, lambda table: table["a"]], ids=["table", "column"])
    def test_categories_stay_categories(self, column):
        tables = [pd.DataFrame({"a": pd.Categorical(words), "b": 1}) for words in (["x", "y"], ["z", None])]
        joined = TableInputs(column(tables[0])).joined(TableInputs(column(tables[1]))).table
        values = joined if joined.ndim == 1 else joined["a"]
        assert list(values.dtype.categories) == ["x", "y", "z"]
        assert values.isna().tolist() == [False, False, False, True]
        assert list(tables[0]["a"].dtype.categories) == ["x", "y"]

    @pytest.mark.parametrize(
        ("column", "number"),
        [
            (pl.Series([True, None]), 1.0),
            (pl.Series([3, None], dtype=pl.Decimal(8, 2)), 3.0),
            (pl.Series([3, None], dtype=pl.Int128), 3.0),
            (pd.Series([3, np.nan], dtype=np.longdouble), 3.0),
        ],
        ids=["truth values", "decimals", "128 bits", "long doubles"],
    )
    def test_numbers_of_kinds_that_torch_has_not(self, column, number):
        library = pl if isinstance(column, pl.Series) else pd
        found = TableInputs(library.DataFrame({"a": column, "b": [1, 2]})).numbers()
        assert found[0].tolist() == [number, 1.0]
        assert found.isnan().tolist() == [[False, False], [True, False]]

    def test_a_class_derived_of_a_table(self):
        class Places(pd.DataFrame):
            """A table of another library."""

        assert Pool.unlabeled(Places({"a": [1.0, 2.0]}), n_classes=2).inputs.numbers().tolist() == [[1.0], [2.0]]

    def test_a_network_gets_no_columns_in_another_order(self):
        x, y = numbers()
        table = pd.DataFrame(x, columns=["a", "b", "c"])
        learner = ActiveLearner(TorchClassifier(epochs=1), Margin(), Pool.unlabeled(table, n_classes=2))
        learner.tell(range(12), y[:12])
        assert learner.predict(table[:3]).equal(learner.predict()[:3])
        with pytest.raises(DataError, match=r"inputs must have the 3 columns of the pool .* column 0 is 'a' there"):
            learner.predict(table[["c", "b", "a"]])
        with pytest.raises(DataError, match=r"the test inputs must have the 3 columns .* got 2: the first are alike"):
            ActiveLearner(TorchClassifier(), Margin(), learner.pool, test=(table[["a", "b"]], y))
