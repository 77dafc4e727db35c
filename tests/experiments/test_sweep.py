import pytest

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")

from experiments import sweep
from tests.study.runs import write_run


class TestReport:
    def test_a_sampler_whose_name_is_no_folder_s(self, tmp_path, capsys):
        for seed in range(2):
            for sampler in ("a/b", "a-b", "~c"):
                settings = {"names": {"data": "d", "model": "m", "sampler": sampler}, "data": None}
                write_run(tmp_path, sampler=sampler.replace("/", "%"), seed=seed, settings=settings)
        assert sweep._report(tmp_path / "digits-logistic", writes=True)
        folder = tmp_path / "digits-logistic" / "tensorboard"
        assert {path.name for path in folder.iterdir()} == {"a-b", "a-b'", "c", "~runs"}
        assert not capsys.readouterr().err

    def test_a_run_without_a_test_part_is_left_out(self, tmp_path):
        write_run(tmp_path, sampler="uniform")
        write_run(tmp_path, sampler="margin", metric="f1", settings={"data": None})
        assert sweep._report(tmp_path / "digits-logistic", writes=True)
        assert (tmp_path / "digits-logistic" / "report" / "report.html").exists()

    def test_runs_that_cannot_be_summed_up(self, tmp_path, capsys):
        write_run(tmp_path, sampler="uniform", metric="f1")
        assert not sweep._report(tmp_path / "digits-logistic", writes=True)
        assert not sweep._report(tmp_path / "nowhere", writes=True)
        assert capsys.readouterr().err.count("error: no report on") == 2

    def test_what_cannot_be_written_keeps_nothing_else_from_it(self, tmp_path, capsys):
        write_run(tmp_path, sampler="uniform", settings={"data": None})
        folder = tmp_path / "digits-logistic"
        (folder / "tensorboard").write_text("")
        assert not sweep._report(folder, writes=True)
        assert "no mean curves of" in capsys.readouterr().err
        assert (folder / "report" / "report.html").exists()
