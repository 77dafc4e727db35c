import gzip
import hashlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from experiments import fetch, folders
from tests.experiments.test_run import QUICK, ROOT, run  # noqa: F401 - a fixture
from tests.real_data import FOLDER

SETS = folders.published()
PARTS = ("train", "validation", "test")


def load(name, *overrides):
    with initialize_config_dir(str(ROOT / "experiments" / "conf"), version_base="1.3"):
        settings = OmegaConf.to_container(compose("config", [f"data={name}", *overrides]).data, resolve=True)
    settings.pop("about")
    return instantiate(settings, _convert_="object")


# too large to keep beside the others: their loaders are tested on small files in the same format
LARGE = ("cifar10", "cifar100", "cifar100_coarse", "covtype", "newsgroup", "rcv1", "svhn", "wikipedia_attack")


@pytest.mark.parametrize("name", [name for name in SETS if name not in LARGE or (FOLDER / name).exists()])
def test_every_set_is_what_its_yaml_says(name, monkeypatch):
    monkeypatch.setenv("TORCHAL_DATA", str(FOLDER.resolve()))
    about = SETS[name]
    if folders.missing_files(about):
        pytest.skip(f"{name} is not in {FOLDER}: set TORCHAL_DATA to the folder with the data sets")
    data = load(name)
    assert sum(len(getattr(data, part).targets) for part in PARTS) == about["rows"]
    assert data.n_classes == about["classes"]
    shape = tuple(data.train.inputs.shape[1:])
    if isinstance(about["columns"], int):
        assert about["columns"] == (shape[0] if len(shape) == 1 else shape[0] * shape[1] * shape[2])
    assert int(data.train.targets.max()) == about["classes"] - 1


@pytest.mark.parametrize("name", SETS)
def test_every_yaml_is_whole(name):
    about = SETS[name]
    assert about.keys() >= {"source", "licence", "rows", "columns", "classes", "files"}
    for file in about["files"]:
        assert file["sha256"] is None or re.fullmatch(r"[0-9a-f]{64}", file["sha256"])
        assert file["bytes"] is None or file["bytes"] > 0
        assert all(re.match(r"https?://", url) for url in file["urls"])
        assert not Path(file["path"]).is_absolute()
        assert ".." not in Path(file["path"]).parts


def test_the_table_in_the_documentation_is_that_of_the_yaml_files():
    assert folders.as_table() in (ROOT / "docs" / "guides" / "data.md").read_text()


class TestFolder:
    def test_is_that_of_the_variable_then_of_the_users_caches(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TORCHAL_DATA", str(tmp_path))
        assert folders.data_folder() == str(tmp_path)
        monkeypatch.delenv("TORCHAL_DATA")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
        assert folders.data_folder() == str(tmp_path / "caches" / "torchal")
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert folders.data_folder() == str(tmp_path / "home" / ".cache" / "torchal")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site with a made copy of the letter data, which are then what the yaml says."""
    content = ("letter,a,b\n" + "A,1,2\nB,3,4\n" * 40).encode()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "letters").write_bytes(content)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = partial(Quiet, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        about = {
            **SETS["letter"],
            "files": [
                {
                    "path": "letter/letter-recognition.data",
                    "urls": [f"{url}/moved", f"{url}/letters"],
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "bytes": len(content),
                }
            ],
        }
        sets = {"letter": about, "waveform": SETS["waveform"]}
        monkeypatch.setattr(fetch, "published", lambda: sets)
        monkeypatch.setenv("TORCHAL_DATA", str(tmp_path / "data"))
        yield tmp_path / "site" / "letters"
        server.shutdown()
        thread.join()


def test_what_is_fetched_is_read_by_an_experiment(site, run, capsys):  # noqa: F811
    code, _, err = run(*QUICK, "data=letter", "schedule.max_rounds=1")
    assert code == 2
    assert "letter-recognition.data is missing" in err
    assert err.strip().endswith("python -m experiments.fetch data=letter")
    assert fetch.main(["data=letter"]) == 0
    assert "1 of 1 files fetched" in capsys.readouterr().out
    assert run(*QUICK, "data=letter", "schedule.max_rounds=1")[0] == 0
    assert fetch.main(["data=letter"]) == 0
    assert "is in " in capsys.readouterr().out


def test_a_set_that_is_there_is_checked_again(site, capsys, tmp_path):
    fetch.main(["data=letter"])
    path = tmp_path / "data" / "letter" / "letter-recognition.data"
    content = path.read_bytes()
    capsys.readouterr()
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    path.unlink()
    assert fetch.main(["data=letter"]) == 0  # packed, it is the same
    assert "not the bytes" not in capsys.readouterr().out
    path.write_bytes(content[:-1])
    assert fetch.main(["data=letter"]) == 0
    out = capsys.readouterr().out
    assert "not the bytes that were published, though they may say the same: letter/letter-recognition.data" in out


def test_list_says_what_is_there(site, capsys):
    fetch.main(["data=letter"])
    capsys.readouterr()
    assert fetch.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^letter +yes +20000 +16 +26 ", out, re.MULTILINE)
    assert re.search(r"^waveform +no +5000 +21 +3 ", out, re.MULTILINE)


def test_one_that_cannot_be_had_does_not_stop_the_others(site, capsys, monkeypatch):
    sets = fetch.published()
    broken = {**sets["letter"], "files": [{**sets["letter"]["files"][0], "path": "other", "sha256": "0" * 64}]}
    monkeypatch.setattr(fetch, "published", lambda: {"broken": broken, "letter": sets["letter"]})
    monkeypatch.setattr(fetch, "fetch_file", partial(fetch.fetch_file, sleep=lambda seconds: None))
    assert fetch.main(["data=broken,letter"]) == 2
    shown = capsys.readouterr()
    assert "letter: 1 of 1 files fetched" in shown.out
    assert "error: broken:" in shown.err
    assert not (Path(folders.data_folder()) / "other").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=leter"], "no data set to fetch is named 'leter'; there are letter, waveform"),
        (["data=digits"], "no data set to fetch is named 'digits'"),
        ([], "got nothing; use python -m experiments.fetch data="),
        (["letter"], "got letter; use"),
        (["data=letter", "--fast"], "use python -m experiments.fetch"),
    ],
)
def test_says_what_is_wrong_in_one_line(words, message, site, capsys):
    assert fetch.main(words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
