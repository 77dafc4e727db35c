from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tests import killed_run
from tests.contracts import NearestMean, make_pool
from torchal import ConfigError, LabeledData, Pool, Schedule, TensorBoard, Trainer
from torchal.runs.loggers import scalars
from torchal.samplers import Uniform
from torchal.statistics.curves import area_under_curve

NO_PROJECTOR = TensorBoard(projector_rows=0)


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    events.Reload()
    return events


def points(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def pictures(events, tag):
    """Return the sizes of pictures by step, after looking into each."""
    found = {}
    for event in events.Images(tag):
        image = Image.open(BytesIO(event.encoded_image_string))
        image.load()
        assert image.size == (event.width, event.height)
        assert event.step not in found, "a picture is there twice"
        found[event.step] = image.size
    return found


def check_scalars(run):
    """Require each scalar of each round once, by its number of labels."""
    events = read(run.folder / "tb")
    expected = {}
    for result in run.rounds:
        for tag, value in scalars(result):
            expected.setdefault(tag, []).append((result.n_labeled, pytest.approx(value, rel=1e-6)))
    for tag, line in expected.items():
        assert points(events, tag) == line, tag
    assert set(events.Tags()["scalars"]) - set(expected) == {
        f"summary/{kind}_{name}" for kind in ("final", "area") for name in ("accuracy", "log_loss")
    }
    return events


class TestRun:
    def test_the_curves_read_back_against_the_number_of_labels(self, tmp_path):
        run = killed_run.run(tmp_path, loggers=[TensorBoard()])
        events = check_scalars(run)
        for phase in ("fit", "select", "label", "score"):
            assert f"seconds/{phase}" in events.Tags()["scalars"]
            assert f"peak_mib/{phase}" in events.Tags()["scalars"]
        n_labeled, values = run.curve()
        assert points(events, "summary/final_accuracy") == [(54, pytest.approx(values[-1]))]
        assert points(events, "summary/area_accuracy") == [(54, pytest.approx(area_under_curve(n_labeled, values)))]
        steps = [result.n_labeled for result in run.rounds]
        for tag in ("asked/classes", "test/calibration"):
            assert list(pictures(events, tag)) == steps
        assert "asked/rows" not in events.Tags()["images"]  # the rows are no pictures

    @pytest.mark.parametrize("moment", ["line", "checkpoint"])
    def test_a_run_that_was_killed_has_every_point_once(self, moment, tmp_path):
        killed_run.run_and_be_killed(tmp_path, moment, loggers=[NO_PROJECTOR])
        (before,) = (tmp_path / "tb").iterdir()
        with before.open("ab") as file:
            file.write(b"\x18\x00\x00half a record")
        run = killed_run.run(tmp_path, loggers=[NO_PROJECTOR])
        events = check_scalars(run)
        assert len(list((tmp_path / "tb").iterdir())) == 1
        steps = [result.n_labeled for result in run.rounds]
        # The pictures of a round whose line was written and nothing more are drawn when it is run again; one that was
        # saved, but not told yet, has none.
        drawn = steps if moment == "line" else [step for step in steps if step != 24]
        assert sorted(pictures(events, "asked/classes")) == drawn
        assert sorted(pictures(events, "test/calibration")) == drawn

    def test_a_run_that_was_killed_while_its_log_was_opened(self, tmp_path):
        killed_run.run_and_be_killed(tmp_path, "line", number=5, loggers=[NO_PROJECTOR])
        (one,) = (tmp_path / "tb").iterdir()
        (tmp_path / "tb" / "events.out.tfevents.1.elsewhere").write_bytes(
            one.read_bytes()
        )  # both were there for a while
        run = killed_run.run(tmp_path, loggers=[NO_PROJECTOR])
        events = check_scalars(run)
        assert sorted(pictures(events, "asked/classes")) == [result.n_labeled for result in run.rounds]

    def test_what_is_not_wanted_is_not_there(self, tmp_path):
        run = killed_run.run(tmp_path, loggers=[TensorBoard(thumbnails=0, charts=False, projector_rows=0)])
        assert read(run.folder / "tb").Tags()["images"] == []
        assert [path.name.split(".")[0] for path in (run.folder / "tb").iterdir()] == ["events"]

    def test_hyperparameters_are_in_the_runs_own_table(self, tmp_path):
        config = {"names": {"sampler": "drift", "data": "blobs"}}
        run = killed_run.run(tmp_path, loggers=[NO_PROJECTOR], config=config)
        events = read(run.folder / "tb")
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        shown = {name: value.WhichOneof("kind") for name, value in start.hparams.items()}
        assert start.hparams["sampler"].string_value == "drift"
        assert start.hparams["data"].string_value == "blobs"
        assert start.hparams["schedule"].string_value == "batch_size=6, budget=54"
        assert start.hparams["seed"].number_value == 0
        assert set(shown.values()) == {"string_value", "number_value"}
        assert len(shown) == 5  # as many as the page shows

    def test_a_metric_that_was_added_when_the_run_went_on_has_no_area(self, tmp_path):
        killed_run.run_and_be_killed(tmp_path, "line")
        run = killed_run.run(tmp_path, loggers=[NO_PROJECTOR], metrics={"mine": lambda outcome: 1.0})
        events = read(tmp_path / "tb")
        assert run.finished
        assert len(events.Scalars("test/mine")) == 6
        assert "summary/area_accuracy" in events.Tags()["scalars"]
        assert "summary/area_mine" not in events.Tags()["scalars"]
        with pytest.raises(ConfigError, match="no test 'mine'; it has accuracy, log_loss"):
            run.curve("mine")

    def test_without_a_test_part_and_probabilities(self, tmp_path):
        pool, targets, _ = make_pool(n_labeled=0)

        class Plain:
            def fit(self, X, y):
                self.label = int(y[0])

            def predict(self, X):
                return np.full(len(X), self.label)

        trainer = Trainer(Plain(), Uniform(), schedule=Schedule(batch_size=6, budget=12), run_dir=tmp_path)
        run = trainer.fit(pool, lambda rows: targets[rows], start=6)
        assert read(run.folder / "tb").Tags()["images"] == ["asked/classes"]


class FlatMean(NearestMean):
    """Reads pictures as flat rows; a clone of its own, so that the model before a round is kept."""

    def __sklearn_clone__(self):
        return FlatMean()

    def fit(self, X, y):
        super().fit(X.flatten(1), y)

    def decision_function(self, X):
        return super().decision_function(X.flatten(1))

    def transform(self, X):
        return X.flatten(1)


def pictures_pool(names=("cat", "dog")):
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 2
    images = torch.rand(40, 1, 6, 6, generator=generator) / 2 + targets[:, None, None, None] / 2
    return Pool.unlabeled(images, classes=list(names)), [names[code] for code in targets.tolist()], images


class TestPictures:
    def run(self, folder, *, model=None, **settings):
        pool, labels, images = pictures_pool()
        trainer = Trainer(
            model or FlatMean(), Uniform(), schedule=Schedule(batch_size=6, budget=24), run_dir=folder, progress=False,
            loggers=[TensorBoard(**settings)],
        )  # fmt: skip
        return trainer.fit(
            pool, lambda rows: [labels[row] for row in rows.tolist()], test=LabeledData(images, labels), start=6
        )

    def captions(self, monkeypatch):
        from torchal.runs import pictures as drawing

        found, whole = [], drawing.sheet
        monkeypatch.setattr(
            drawing, "sheet", lambda images, captions: (found.append(captions), whole(images, captions))[1]
        )
        return found

    def test_rows_with_their_labels_and_what_the_model_had_said(self, tmp_path, monkeypatch):
        found = self.captions(monkeypatch)
        run = self.run(tmp_path, thumbnails=4)
        events = read(run.folder / "tb")
        assert len(pictures(events, "asked/rows")) == len(run.rounds) == 4
        _, labels, images = pictures_pool()
        for number, (captions, result) in enumerate(zip(found, run.rounds, strict=True)):
            assert [caption.label for caption in captions] == [labels[row] for row in result.rows[:4].tolist()]
            if number == 0:
                assert {caption.predicted for caption in captions} == {None}  # there was no model yet
                continue
            before = torch.cat([earlier.rows for earlier in run.rounds[:number]]).sort().values
            model = FlatMean()
            model.fit(images[before], before % 2)
            said = [("cat", "dog")[code] for code in model.predict(images[result.rows[:4]]).tolist()]
            assert [caption.predicted for caption in captions] == said

    def test_a_model_that_is_refitted_in_place_has_said_nothing(self, tmp_path, monkeypatch):
        found = self.captions(monkeypatch)

        class InPlace:
            takes_tensors = True

            def fit(self, X, y):
                self.means = FlatMean()
                self.means.fit(X, y)

            def predict(self, X):
                return self.means.predict(X)

        self.run(tmp_path, model=InPlace())
        assert {caption.predicted for captions in found for caption in captions} == {None}

    def test_a_usual_run_writes_little(self, tmp_path):
        run = self.run(tmp_path)
        assert sum(file.stat().st_size for file in (run.folder / "tb").rglob("*")) < 200_000


class TestProjector:
    def read(self, folder):
        tensors = np.loadtxt(folder / "projector" / "tensors.tsv", delimiter="\t", ndmin=2)
        head, *lines = (folder / "projector" / "metadata.tsv").read_text(encoding="utf-8").splitlines()
        return tensors, [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]

    def check(self, run, labels):
        tensors, rows = self.read(run.folder / "tb")
        assert len(tensors) == len(rows)
        bought = {row: result for result in run.rounds for row in result.rows.tolist()}
        for row in rows:
            number = int(row["row"])
            if number in bought:
                expected = (labels[number], str(bought[number].round), bought[number].picked_by)
            else:
                expected = ("not bought", "-1", "nobody")
            assert (row["class"], row["round"], row["picked_by"]) == expected
            assert row["predicted"] in labels
        return tensors, [int(row["row"]) for row in rows], set(bought)

    def test_rows_with_what_is_known_of_them_and_their_pictures(self, tmp_path):
        run = TestPictures().run(tmp_path)
        _, labels, images = pictures_pool()
        tensors, rows, bought = self.check(run, labels)
        assert rows == list(range(40))
        assert len(bought) == 24
        np.testing.assert_allclose(tensors, images.flatten(1).numpy(), atol=1e-4)
        config = (tmp_path / "tb" / "projector_config.pbtxt").read_text()
        assert "single_image_dim: 6 single_image_dim: 6" in config
        sprite = np.asarray(Image.open(tmp_path / "tb" / "projector" / "sprite.png"))
        assert sprite.shape == (42, 42)  # 7 x 7 cells
        np.testing.assert_allclose(sprite[6:12, 6:12], 255 * images[8, 0].numpy(), atol=1)

    def test_the_server_of_tensorboard_reads_it(self, tmp_path):
        from google.protobuf import text_format
        from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

        TestPictures().run(tmp_path)
        config = text_format.Parse((tmp_path / "tb" / "projector_config.pbtxt").read_text(), ProjectorConfig())
        (one,) = config.embeddings
        for path in (one.tensor_path, one.metadata_path, one.sprite.image_path):
            assert (tmp_path / "tb" / path).is_file()

    @pytest.mark.parametrize("most", [30, 10])
    def test_bought_rows_come_before_others(self, most, tmp_path):
        run = TestPictures().run(tmp_path, projector_rows=most)
        _, rows, bought = self.check(run, pictures_pool()[1])
        assert len(rows) == most
        assert bought <= set(rows) if most == 30 else set(rows) <= bought

    def test_names_with_tabs_and_breaks_stay_in_their_column(self, tmp_path):
        names = ("a\tb", "c\nd")
        pool, labels, _ = pictures_pool(names)
        trainer = Trainer(FlatMean(), Uniform(), schedule=Schedule(batch_size=6, budget=12), run_dir=tmp_path)
        run = trainer.fit(pool, lambda rows: [labels[row] for row in rows.tolist()], start=6)
        self.check(run, [label.replace("\t", " ").replace("\n", " ") for label in labels])

    def test_wide_features_are_projected_on_their_components(self, tmp_path):
        inputs = torch.randn(100, 300, generator=torch.Generator().manual_seed(0))
        inputs[:, :2] *= 50
        targets = (inputs[:, 0] > 0).long()
        pool = Pool.unlabeled(inputs, n_classes=2)
        trainer = Trainer(FlatMean(), Uniform(), schedule=Schedule(batch_size=6, budget=12), run_dir=tmp_path)
        trainer.fit(pool, lambda rows: targets[rows], start=6)
        tensors, _ = self.read(tmp_path / "tb")
        assert tensors.shape == (100, 64)
        first = np.abs(np.corrcoef(tensors[:, :2].T, inputs[:, :2].T)[:2, 2:])
        assert (first**2).sum(0).min() > 0.95

    @pytest.mark.parametrize("n_rows", [12, 100])
    def test_rows_that_are_all_the_same(self, n_rows, tmp_path):
        targets = torch.arange(n_rows) % 2
        pool = Pool.unlabeled(torch.ones(n_rows, 300), n_classes=2)
        trainer = Trainer(FlatMean(), Uniform(), schedule=Schedule(batch_size=6, budget=12), run_dir=tmp_path)
        trainer.fit(pool, lambda rows: targets[rows], start=torch.arange(6))
        tensors, rows = self.read(tmp_path / "tb")
        assert len(tensors) == len(rows) == n_rows
        assert not tensors.any()

    def test_texts_whose_pipeline_makes_sparse_rows_are_left_out(self, tmp_path):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.naive_bayes import MultinomialNB
        from sklearn.pipeline import make_pipeline

        texts = np.array([f"{('good', 'bad')[number % 2]} film {number}" for number in range(40)], dtype=object)
        labels = [number % 2 for number in range(40)]
        model = make_pipeline(TfidfVectorizer(), MultinomialNB())
        trainer = Trainer(model, Uniform(), schedule=Schedule(batch_size=6, budget=12), run_dir=tmp_path)
        run = trainer.fit(
            Pool.unlabeled(texts, n_classes=2), lambda rows: torch.tensor(labels)[rows], start=torch.arange(6)
        )
        assert run.finished
        assert not (tmp_path / "tb" / "projector").exists()

    def test_rows_without_features_are_left_out(self, tmp_path):
        import scipy.sparse
        from sklearn.naive_bayes import MultinomialNB

        inputs = scipy.sparse.random(60, 20, density=0.3, format="csr", random_state=0)
        targets = torch.arange(60) % 2
        trainer = Trainer(MultinomialNB(), Uniform(), schedule=Schedule(batch_size=6, budget=12), run_dir=tmp_path)
        run = trainer.fit(Pool.unlabeled(inputs, n_classes=2), lambda rows: targets[rows], start=6)
        assert run.finished
        assert not (tmp_path / "tb" / "projector").exists()
