import csv
import math

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from torchal.errors import ConfigError, DataError
from torchal.exchange import Answers, Question, read_answers, write_csv, write_parquet, write_questions

SHORT = Question("a7", rank=1, score=0.25, picked_by="Margin")
FULL = Question(
    id="b 2",
    rank=2,
    score=None,
    picked_by="TypiClust",
    nearest_id="a1",
    nearest_label="dog",
    distance=1e-7,
    represents=12,
    predicted='a "cat"; black',
    probability=0.5,
    text="two\r\nlines,\rand a tab\t",
    image="x/ä.png",
    x=1.5,
    y=-2.0,
)
COLUMNS = "id,rank,score,picked_by,nearest_id,nearest_label,distance,represents,predicted,probability"


@pytest.fixture
def answers_in(tmp_path):
    def read(content, name="answers.csv", **settings):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_answers(path, **settings)

    return read


class TestWriting:
    def test_columns_are_in_order_and_those_of_the_row_where_given(self, tmp_path):
        short = write_questions([SHORT], tmp_path / "short.csv").read_text()
        assert short.splitlines() == [f"{COLUMNS},label", "a7,1,0.25,Margin,,,,,,,"]
        header = write_csv([SHORT, FULL], tmp_path / "full.csv").read_text().splitlines()[0]
        assert header == f"{COLUMNS},text,image,x,y,label"

    @pytest.mark.parametrize("ending", [".csv", ".parquet"])
    def test_pandas_reads_every_value(self, tmp_path, ending):
        path = write_questions([SHORT, FULL], tmp_path / f"ask{ending}")
        table = pd.read_csv(path) if ending == ".csv" else pd.read_parquet(path)
        for name in table.columns:
            want = [getattr(question, name) for question in (SHORT, FULL)]
            got = [None if pd.isna(value) else value for value in table[name]]
            assert got == want, name

    @pytest.mark.parametrize("ending", [".csv", ".parquet"])
    def test_what_is_written_is_read(self, tmp_path, ending):
        answered = Question("c", rank=3, score=1.0, picked_by="me", text="t", label="cat")
        path = write_questions([SHORT, FULL, answered], tmp_path / f"ask{ending}")
        assert read_answers(path) == Answers(["a7", "b 2", "c"], [None, None, "cat"])
        assert read_answers(path, label_column="picked_by").labels == ["Margin", "TypiClust", "me"]

    def test_parquet_columns_have_types_where_nobody_knows_a_number(self, tmp_path):
        schema = pq.read_schema(write_parquet([SHORT], tmp_path / "ask.parquet"))
        assert schema.field("represents").type == pa.int64()
        assert schema.field("distance").type == pa.float64()
        assert schema.field("label").type == pa.string()

    def test_a_file_is_replaced_whole_or_not_at_all(self, tmp_path):
        path = write_csv([SHORT], tmp_path / "ask.csv")
        before = path.read_bytes()
        with pytest.raises(DataError):
            write_csv([SHORT, SHORT], path)
        assert path.read_bytes() == before
        assert [child.name for child in tmp_path.iterdir()] == ["ask.csv"]

    @pytest.mark.parametrize(
        ("questions", "words"),
        [
            ([], "no questions"),
            ([SHORT, FULL, SHORT], "questions 0 and 2 have the same id 'a7'"),
            ([Question("", 1, None, "m")], "question 0 has no id"),
            ([Question(" a", 1, None, "m")], "begins or ends with blanks"),
            ([Question(7, 1, None, "m")], "question 0 has no id: 7"),
            ([Question("a", 1, None, "m", text="\0")], "text of the question 'a' holds"),
            ([Question("a", 1, None, "m", predicted="\ud800")], "predicted of the question 'a' holds"),
        ],
    )
    @pytest.mark.parametrize("ending", [".csv", ".parquet"])
    def test_refuses_questions_that_no_answer_could_name(self, tmp_path, questions, words, ending):
        with pytest.raises(DataError, match=words):
            write_questions(questions, tmp_path / f"ask{ending}")
        assert not list(tmp_path.iterdir())

    def test_the_ending_decides(self, tmp_path):
        with pytest.raises(ConfigError, match=r"to .csv or .parquet, got .*ask.xlsx"):
            write_questions([SHORT], tmp_path / "ask.xlsx")

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=4))
    @settings(max_examples=60, deadline=None)
    def test_any_text_comes_back(self, tmp_path_factory, texts):
        questions = [Question(f"q{i}", i, None, "m", text=text, label=text) for i, text in enumerate(texts)]
        for ending in (".csv", ".parquet"):
            path = write_questions(questions, tmp_path_factory.mktemp("texts") / f"ask{ending}")
            assert read_answers(path).labels == [text.strip() or None for text in texts]


class TestReading:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_tables_of_every_program(self, answers_in, delimiter, end, encoding):
        rows = [["more", " id", "label "], ["1,5;\t", " ä ", " cat "], ["", "b", ""], ["", "c", "a b"], ["", "", ""]]
        text = end.join(delimiter.join(f'"{cell}"' if cell == "1,5;\t" else cell for cell in row) for row in rows)
        assert answers_in(text.encode(encoding)) == Answers(["ä", "b", "c"], ["cat", None, "a b"])

    @pytest.mark.parametrize("first", ["sep=;\r\n", "SEP=;\n", "\ufeffsep=;\n"])
    def test_the_first_line_of_excel(self, answers_in, first):
        assert answers_in(f"{first}id;label\na;x,y\n") == Answers(["a"], ["x,y"])
        with pytest.raises(DataError, match="line 3 has 1 cells, and the first line 2"):
            answers_in(f"{first}id;label\na,x\n")

    def test_quoted_line_breaks_and_quotes(self, answers_in):
        got = answers_in('text,id,label\n"one\ntwo ""x"", three",a,cat\n\n"last\r\n",b,"d,og"\n')
        assert got == Answers(["a", "b"], ["cat", "d,og"])

    def test_a_header_alone_is_fine(self, answers_in):
        for text in ("id,label", "id,label\n", "label;id\r\n\r\n", "\n\nid,label\n"):
            assert answers_in(text) == Answers([], [])

    def test_long_texts(self, answers_in):
        limit = csv.field_size_limit()
        assert answers_in(f"id,label,text\na,cat,{'x' * 300_000}\n").labels == ["cat"]
        assert csv.field_size_limit() == limit

    def test_a_row_twice_with_the_same_label_counts_once(self, answers_in):
        assert answers_in("id,label\na,cat\na,cat\nb,\na,\nb,dog\n") == Answers(["a", "b"], ["cat", "dog"])

    def test_other_columns(self, answers_in):
        assert answers_in("name\tclass\na\tx\n", id_column="name", label_column="class").labels_of() == {"a": "x"}

    def test_names_all_problems_at_once(self, answers_in):
        content = b'id,label\na,cat\nb,dog,3\nc\n,lost\na,dog\n"two\nlines",x\na\0,\n\xff\xfe,e\na,cow\n'
        with pytest.raises(DataError, match="7 problems") as caught:
            answers_in(content)
        for words in (
            "line 10 is no text in utf-8",
            "NUL characters are in 1 lines, the first is line 9",
            "line 3 has 3 cells, and the first line 2",
            "line 4 has 1 cells, and the first line 2",
            "line 5 has no id, and the label 'lost'",
            "the id 'a' has the label 'cat' in line 2, and 'dog' in line 6",
            "the id 'a' has the label 'cat' in line 2, and 'cow' in line 11",
        ):
            assert words in str(caught.value)

    def test_a_list_of_problems_ends(self, answers_in):
        with pytest.raises(DataError, match=r"5000 problems.*\n(.*\n)+- and 4900 more"):
            answers_in("id,label\n" + "a,b,c\n" * 5000)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "is empty"),
            (" \n\t\n", "is empty"),
            ("sep=;\n", "nothing in it but a first line for Excel"),
            ('sep="\nid"label\n', "names the delimiter '\"', which is none of"),
            ("a,b\n1,2\n", "no column 'id'; there are 'a', 'b'\n.*no column 'label'; there are 'a', 'b'"),
            ("id;klass\n", "no column 'label'; there are 'id', 'klass'"),
            ("id,label,label\n", "2 columns are called 'label'"),
            ('id,label\na,"cat\nb,dog\n', "from line 2 on it is no CSV: unexpected end of data"),
            ('id,label\n"a"x,cat\n', "from line 2 on it is no CSV"),
            (b"\xff\xfea", "no text in utf-16"),
        ],
    )
    def test_refuses(self, answers_in, content, words):
        with pytest.raises(DataError, match=f"answers.csv.*(\n.*)*{words}"):
            answers_in(content)

    def test_refuses_other_files(self, answers_in, tmp_path):
        with pytest.raises(DataError, match=r"none.csv cannot be read: No such file"):
            read_answers(tmp_path / "none.csv")
        (tmp_path / "folder.csv").mkdir()
        with pytest.raises(DataError, match="cannot be read"):
            read_answers(tmp_path / "folder.csv")
        with pytest.raises(ConfigError, match="save it as"):
            answers_in("", "answers.xlsx")


class TestParquet:
    def test_labels_of_any_type(self, tmp_path):
        path = tmp_path / "a.parquet"
        pd.DataFrame({"id": [1, 2, 3], "label": [1.0, math.nan, 0.0]}).to_parquet(path)
        assert read_answers(path) == Answers(["1", "2", "3"], ["1", None, "0"])
        pd.DataFrame({"id": ["a", "b"], "label": pd.Categorical(["x", None])}).to_parquet(path)
        assert read_answers(path) == Answers(["a", "b"], ["x", None])

    def test_names_all_problems_at_once(self, tmp_path):
        path = tmp_path / "a.parquet"
        pd.DataFrame({"id": ["a", None, "a"], "label": ["x", "y", "z"]}).to_parquet(path)
        with pytest.raises(DataError, match=r"2 problems:\n- row 1 has no id, .*\n- .*'x' in row 0, and 'z' in row 2"):
            read_answers(path)
        pd.DataFrame({"name": ["a"]}).to_parquet(path)
        with pytest.raises(DataError, match="no column 'id'; there are 'name'"):
            read_answers(path)

    def test_no_parquet(self, answers_in):
        with pytest.raises(DataError, match="it is no Parquet file"):
            answers_in("id,label\n", "a.parquet")


HEADER = b"id,label\n"
BITS = [
    b"id",
    b"label",
    b",",
    b";",
    b"\t",
    b'"',
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xfe",
    b"\xef\xbb\xbf",
    b"sep=",
    b"a",
    b" ",
]
ANYTHING = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from(BITS), max_size=30).map(b"".join),
    st.binary(max_size=40).map(lambda tail: HEADER + tail),
    st.lists(st.sampled_from(BITS), max_size=20).map(lambda bits: HEADER + b"".join(bits)),
)


def check_reading(path, content):
    """Read some bytes, which must give answers or a DataError that names the file."""
    path.write_bytes(content)
    try:
        answers = read_answers(path)
    except DataError as error:
        if str(path) not in str(error):
            raise AssertionError("the error does not say which file") from error
        return
    assert all(name and name == name.strip() for name in answers.ids)
    assert all(label is None or label == label.strip() != "" for label in answers.labels)


class TestBytes:
    @given(ANYTHING)
    @example(b"\xef\xbb\xbf")
    @example(b"sep=\n\nid")
    @settings(max_examples=500, deadline=None)
    def test_of_any_kind_are_answers_or_a_data_error(self, tmp_path_factory, content):
        check_reading(tmp_path_factory.getbasetemp() / "any.csv", content)

    @given(st.binary(max_size=200), st.integers(0, 5000))
    @settings(max_examples=60, deadline=None)
    def test_of_a_damaged_parquet_file(self, tmp_path_factory, noise, at):
        path = tmp_path_factory.getbasetemp() / "any.parquet"
        content = write_parquet([SHORT, FULL], path).read_bytes()
        at %= len(content)
        check_reading(path, content[:at] + noise + content[at + len(noise) :])
