"""Rows that are asked for, and labels that come back, as files of other tools."""

from torchal.exchange.answers import Answers as Answers
from torchal.exchange.coco import read_coco as read_coco
from torchal.exchange.coco import write_coco as write_coco
from torchal.exchange.cvat import read_cvat as read_cvat
from torchal.exchange.cvat import write_cvat as write_cvat
from torchal.exchange.hugging_face import read_argilla as read_argilla
from torchal.exchange.hugging_face import read_dataset as read_dataset
from torchal.exchange.hugging_face import write_argilla as write_argilla
from torchal.exchange.hugging_face import write_dataset as write_dataset
from torchal.exchange.hugging_face import write_image_folder as write_image_folder
from torchal.exchange.label_studio import label_studio_config as label_studio_config
from torchal.exchange.label_studio import read_label_studio as read_label_studio
from torchal.exchange.label_studio import write_label_studio as write_label_studio
from torchal.exchange.label_studio import write_label_studio_config as write_label_studio_config
from torchal.exchange.questions import Question as Question
from torchal.exchange.tables import read_answers as read_answers
from torchal.exchange.tables import write_csv as write_csv
from torchal.exchange.tables import write_parquet as write_parquet
from torchal.exchange.tables import write_questions as write_questions
