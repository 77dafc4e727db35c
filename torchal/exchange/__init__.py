"""Rows that are asked for, and labels that come back, as files of other tools."""

from torchal.exchange.answers import Answers as Answers
from torchal.exchange.questions import Question as Question
from torchal.exchange.tables import read_answers as read_answers
from torchal.exchange.tables import write_csv as write_csv
from torchal.exchange.tables import write_parquet as write_parquet
from torchal.exchange.tables import write_questions as write_questions
