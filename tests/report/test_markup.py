import html

from hypothesis import given
from hypothesis import strategies as st

from torchal.report.markup import clean, escape, name, number, percent


class TestEscape:
    @given(text=st.text(st.characters(exclude_categories=[])))
    def test_nothing_of_a_text_is_markup(self, text):
        escaped = escape(text)
        assert not set(escaped) & set("<>\"'\r\0")
        assert html.unescape(escaped) == clean(text)
        escaped.encode("utf-8")

    def test_what_is_no_text_has_a_sign(self):
        assert clean("a\0b\ud800c\x1b[31m\x85\ufffe") == "a�b�c�[31m��"
        assert clean("tab\tline\n") == "tab\tline\n"
        assert clean("a\r\nb\rc") == "a\nb\nc"

    def test_a_name_does_not_turn_what_is_beside_it(self):
        assert name("\u202e<x>") == "<bdi>\u202e&lt;x&gt;</bdi>"


class TestNumber:
    def test_is_short(self):
        assert [number(x) for x in (0, -2, 3.0, 1e300, -0.00012345, float("nan"))] == [
            "0",
            "&minus;2",
            "3",
            "1e+300",
            "&minus;0.0001234",
            "not a number",
        ]


class TestPercent:
    @given(share=st.floats(0, 1))
    def test_only_all_is_100_and_only_nothing_is_0(self, share):
        assert (percent(share) == "0 %") == (share == 0)
        assert (percent(share) == "100 %") == (share == 1)
