import pytest
from PIL import Image

from torchal.exchange import Question


@pytest.fixture
def texts():
    return [
        Question("row 1", 1, 0.5, "Margin", predicted="cat", probability=0.75, text="one", nearest_label="dog"),
        Question("row 2", 2, float("-inf"), "Margin", text="two & <three>"),
        Question("row 3", 3, None, "Random", text="vier ö"),
    ]


@pytest.fixture
def images(tmp_path):
    """Questions about images, in the folder `images`."""
    sizes = {"a/1.png": (8, 6), "a/2.png": (9, 5), "b/3.png": (4, 4)}
    for name, size in sizes.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(tmp_path / "images" / name)
    predicted = ("dog", None, "cat")
    return [
        Question(f"row {i}", i, 0.5, "Margin", predicted=predicted[i - 1], image=name)
        for i, name in enumerate(sizes, 1)
    ]
