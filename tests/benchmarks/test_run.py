import json

from benchmarks import harness, run


def test_the_table_has_ours_beside_the_others(tmp_path, capsys, monkeypatch):
    arguments = ["--size", "small", "--only", "uncertainty", "--json", str(tmp_path / "table.json")]
    monkeypatch.setattr(harness, "PAUSE", 0)
    assert run.main(arguments) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    ours = [row for row in table["rows"] if row["who"] == "ours"]
    assert len(ours) == 3
    assert all(row["seconds"] > 0 and row["times_ours"] == 1 for row in ours)
    assert capsys.readouterr().out.count("x ours") == len(table["rows"])
