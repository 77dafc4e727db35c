import json

from benchmarks import hundred_million


def test_each_work_has_a_line(tmp_path):
    options = ["--rows", "3000", "--columns", "8", "--picks", "5", "--folder", str(tmp_path), "--out", str(tmp_path)]
    assert hundred_million.main(options) == 0
    table = json.loads(next(tmp_path.glob("*.json")).read_text())["rows"]
    assert [row["work"].split(",")[0] for row in table] == list(hundred_million.WORKS)
    passes = {row["work"].split(",")[0]: row["passes"] for row in table}
    assert passes["margin"] == 1
    assert passes["uniform"] == 0
    assert min(passes["k-center"], passes["k-means++"]) >= 1
    assert all(row["peak_mib"] > 100 for row in table)
    lines = next(tmp_path.glob("*.md")).read_text().splitlines()
    assert len(lines) == 4 + len(table)


def test_files_that_are_there_are_used_again(tmp_path):
    def make(n, generator):
        made.append(n)
        return hundred_million.torch.randn(n, 4, generator=generator)

    made = []
    paths = hundred_million.write(tmp_path, "x", 10, make)
    assert sum(path.stat().st_size for path in paths) == 160
    made.clear()
    assert hundred_million.write(tmp_path, "x", 10, make) == paths
    assert made == [1]  # how wide a row is
