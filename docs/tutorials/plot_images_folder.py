"""
Images in a folder
==================

You have a folder of image files, transforms of torchvision that you trust, and people who know what is on the images
but do not read Python. This tutorial reads the files as they are, trains a small network on those that have a label,
augmented, asks for the next ones, and writes the page that the people get: with the images, a map, and what the
network takes each image for.
"""

# %%
# The folder
# ----------
# scikit-learn's handwritten digits become 500 files, 32 by 32 pixels each. Where yours are, nothing of this block is
# needed. The truth goes into a list that stands for the people; the names of the files do not give it away.

import html
import tempfile
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torchvision.transforms import v2

from torchal import ActiveLearner, DatasetInputs, Pool, TorchClassifier
from torchal.data import ImageFiles
from torchal.errors import DataError
from torchal.exchange import Question
from torchal.report import as_png, draw_map, map_coordinates, write_page
from torchal.samplers import Badge

workspace = tempfile.TemporaryDirectory()
photos = Path(workspace.name, "photos")
photos.mkdir()
digits = load_digits()
for number in range(500):
    pixels = 255 - digits.images[number] * (255 / 16)
    image = Image.fromarray(pixels.round().astype("uint8")).resize((32, 32), Image.Resampling.BICUBIC)
    image.save(photos / f"scan_{number:04}.png")

# %%
# Files as rows
# -------------
# :class:`torchal.data.ImageFiles` is a torch data set: item *i* is the image in file *i*, decoded when it is asked for
# and not before, and given to your transform as a tensor (3, H, W) of bytes. Two of them over the same files, one with
# random transforms for training and one without for everything else, make a :class:`torchal.DatasetInputs`.
#
# Sort the files. The order in which a file system lists them is not the same everywhere, and rows are told by number.

paths = sorted(photos.glob("*.png"))
tensor = [
    v2.Grayscale(),
    v2.Resize(16, antialias=True),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize([0.7], [0.3]),
]
plain = v2.Compose(tensor)
augmented = v2.Compose([v2.RandomAffine(8, translate=(0.06, 0.06), scale=(0.9, 1.1), fill=255), *tensor])
inputs = DatasetInputs(ImageFiles(paths, transform=plain), train=ImageFiles(paths, transform=augmented))
print(f"{len(inputs)} images as {tuple(inputs[:1].load().shape[1:])}")

# %%
# Look at what the network will see while it trains. A transform that turns a 6 into a 9 is found here, or never.

figure, axes = plt.subplots(2, 8, figsize=(8, 2.3), layout="constrained")
for column in range(8):
    for row, dataset in enumerate((inputs.dataset, inputs.train)):
        axes[row, column].imshow(dataset[column][0], cmap="gray")
        axes[row, column].set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("as it is")
axes[1, 0].set_ylabel("in training")
plt.show()

# %%
# A network of yours
# ------------------
# Any ``nn.Module``; :class:`torchal.TorchClassifier` tells it ``input_shape``, ``n_features`` and ``n_classes`` as far
# as it asks for them, and makes a new one at each fit.


class SmallNet(nn.Module):
    def __init__(self, input_shape, n_classes):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(input_shape[0], 16, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 5 * 5, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, n_classes)

    def forward(self, x):
        return self.head(self.body(x))


model = TorchClassifier(
    SmallNet, optimizer=partial(torch.optim.AdamW, lr=2e-3), epochs=15, batch_size=32, num_workers=0
)

# %%
# With weights that somebody has trained already, ``module`` is a function that loads them and puts a new layer at the
# end:
#
# .. code-block:: python
#
#     def pretrained(n_classes):
#         net = torchvision.models.resnet18(weights="DEFAULT")
#         net.fc = nn.Linear(net.fc.in_features, n_classes)
#         return net
#
# Ask, three times
# ----------------
# :class:`torchal.samplers.Badge` takes images about which the network is unsure *and* that differ from each other,
# which a batch of images wants: a folder is full of shots of the same thing.

names = [str(digit) for digit in range(10)]
learner = ActiveLearner(model, Badge(), Pool.unlabeled(inputs, classes=names), seed=0)
for _ in range(3):
    rows = learner.ask(25)
    learner.tell(rows, [names[digits.target[row]] for row in rows.tolist()])
rows = learner.ask(20)
print(f"{learner.pool.n_labeled} labels so far; next:", ", ".join(paths[row].name for row in rows[:4].tolist()), "...")

# %%
# The page for whoever labels
# ---------------------------
# One pass over all images says what the network takes each for, how sure it is, and where it lies on a map.

embedding, logits = learner.model.outputs(inputs)
sure, guesses = logits.softmax(1).max(1)
xy, explained = map_coordinates(embedding, generator=torch.Generator().manual_seed(0))
labeled = learner.pool.labeled.nonzero().squeeze(1)
chart = draw_map(
    xy, labeled=labeled, labels=learner.pool.targets[labeled], classes=names, asked=rows, explained=explained
)

# %%
# :func:`torchal.report.write_page` puts all of this into one file that opens in any browser and fetches nothing, so
# that it can go by mail. It returns the images that it could not show.

questions = [
    Question(
        id=paths[row].name,
        rank=rank,
        score=None,
        picked_by="Badge",
        predicted=names[guesses[row]],
        probability=float(sure[row]),
        image=f"photos/{paths[row].name}",
    )
    for rank, row in enumerate(rows.tolist(), 1)
]
page = Path(workspace.name, "to_label.html")
problems = write_page(
    page,
    title="20 images to label",
    questions=questions,
    map_png=as_png(chart.quantize(64)),  # a third of the bytes, and no difference to the eye
    classes={name: int((learner.pool.targets == code).sum()) for code, name in enumerate(names)},
    predicted={name: int((guesses == code).sum()) for code, name in enumerate(names)},
    confidence=sure,
    notes=["Badge took images of which the network is unsure and that differ from each other."],
    folder=workspace.name,
)
print(f"{page.name}: {page.stat().st_size / 1000:.0f} kB, {len(problems)} images could not be shown")

# %%
# This is it, in a frame:

# sphinx_gallery_capture_repr_block = ('_repr_html_',)


class Framed:
    def __init__(self, path):
        self.source = html.escape(path.read_text(encoding="utf-8"))

    def _repr_html_(self):
        style = "width: 100%; height: 640px; border: 1px solid #8888"
        return f'<iframe title="the page for whoever labels" srcdoc="{self.source}" style="{style}"></iframe>'


Framed(page)

# %%
# The rings on the map are what is asked for, the most wanted first. They should lie in many places; rings in one heap
# say that the strategy sees no more than one difficulty.
#
# Answers come back by the files' names, from a spreadsheet or from a labeling tool, see :doc:`plot_labeling_tools`.
# To the learner they go by row:

row_of = {path.name: row for row, path in enumerate(paths)}
answers = {question.id: names[digits.target[row_of[question.id]]] for question in questions}
learner.tell([row_of[name] for name in answers], list(answers.values()))
right = torch.tensor(digits.target[:500])[~learner.pool.labeled] == learner.model.predict(inputs)[~learner.pool.labeled]
print(f"{learner.pool.n_labeled} labels; of the other images, {right.double().mean():.1%} are taken for what they are")

# %%
# That last figure is for curiosity. It is no test accuracy: the images that were hard are not in it any more.
#
# What can go wrong
# -----------------
# A file that was cut short in copying stops the pass that meets it, with its name and its row. Take it out of the
# candidates by ``learner.cannot_label([row])``, or mend it and go on.

paths[3].write_bytes(paths[3].read_bytes()[:100])
try:
    inputs.dataset[3]
except DataError as error:
    print(str(error).replace(workspace.name, ""))
workspace.cleanup()

# %%
# * **Images of different sizes** need a transform that makes one size of them; the error names the first that differs.
# * **Reading is slower than the network.** ``num_workers=`` reads in other processes. If the body of the network is not
#   trained, :func:`torchal.embed` with ``out="features.npy"`` reads the files once for all rounds.
# * **Near-duplicates**, as frames of a video: :class:`torchal.samplers.ByGroup` asks for all of one scene, and
#   :class:`torchal.samplers.TypiClust` for one of each cluster.
#
# Without Python, ``torchal query --images photos/ --weights backbone.pt2`` asks from the shell, by the features of
# a network that you have: :doc:`/guides/command`.
