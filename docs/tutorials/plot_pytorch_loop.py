"""
Your own PyTorch training loop
==============================

You have a network, a training loop that works, and more images than you can have labeled. You do not want a framework
around any of it: you want to know *which images to label next*. That takes four lines after each training. This
tutorial adds them to a plain PyTorch script, looks at the images that are picked, and then checks, seed by seed, that
picking was worth it.
"""

# %%
# The situation
# -------------
# The images are scikit-learn's handwritten digits, real and small: 1 797 of them, 8 by 8 pixels. 1 297 are the pool
# that labels can be bought for, and 500 are the test part. All labels are known here, so that this is a simulation: a
# label counts as bought once its image was chosen, and nothing else in the script may look at it.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import torchal
from torchal import PoolView
from torchal.samplers import InformativeDiverse, Uniform
from torchal.statistics import area_under_curve, compare, mean_interval

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
pool_images, pool_labels = images[order[:1297]], labels[order[:1297]]
test_images, test_labels = images[order[1297:]], labels[order[1297:]]
print(f"{len(pool_images)} images to choose from, {len(test_images)} to test on")

# %%
# The training loop is yours. This one is as short as it can be; nothing in it knows of active learning. It starts from
# fresh weights each time, which is slower than going on from the last ones but leaves no doubt about what a batch of
# labels was good for.


def train(x, y, *, seed, epochs=25):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32):
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


@torch.no_grad()
def accuracy(net):
    return float((net(test_images).argmax(1) == test_labels).double().mean())


# %%
# Four lines
# ----------
# Begin with twenty images at random, and train.

labeled = torch.zeros(len(pool_images), dtype=torch.bool)
labeled[torch.randperm(len(pool_images), generator=torch.Generator().manual_seed(0))[:20]] = True
net = train(pool_images[labeled], pool_labels[labeled], seed=0)
print(f"20 labels: {accuracy(net):.3f} of the test images are right")

# %%
# Now the four lines. :func:`torchal.embed` runs the network once over all images and gives its logits and what goes
# into its last linear layer; :meth:`torchal.PoolView.from_tensors` says what a strategy may look at, and which rows
# have a label already; the strategy names the rows. :class:`torchal.samplers.InformativeDiverse` takes those that the
# network is least sure of, of each cluster of the pool no more than its share.

outputs = torchal.embed(net, pool_images, progress=False)
view = PoolView.from_tensors(features=outputs.features, scores=outputs.logits, labeled=labeled)
picks = InformativeDiverse().select(view, 20)
labeled[picks.indices] = True

print(f"features {tuple(outputs.features.shape)}, logits {tuple(outputs.logits.shape)}")
print(f"to label next: {picks.indices[:6].tolist()}, ...")

# %%
# Look at what was picked before you pay for it. In the upper row are ten of the picks with what the network takes them
# for, in the lower one ten images at random. Picks should look *hard but readable*. If they are blurred, cut off or not
# of your task at all, the strategy has found the rubbish in your pool: take it out first.

with torch.no_grad():
    guesses = net(pool_images).softmax(1)
at_random = torch.randperm(len(pool_images), generator=torch.Generator().manual_seed(1))[:10]
figure, axes = plt.subplots(2, 10, figsize=(10, 2.7), layout="constrained")
for row, (name, rows) in enumerate({"picked": picks.indices[:10], "at random": at_random}.items()):
    for axis, one in zip(axes[row], rows.tolist(), strict=True):
        axis.imshow(pool_images[one, 0], cmap="gray_r")
        sure, guess = guesses[one].max(0)
        axis.set_title(f"{int(guess)}? {float(sure):.0%}", fontsize=9)
        axis.set(xticks=[], yticks=[])
    axes[row, 0].set_ylabel(name)
plt.show()

# %%
# Was it worth it?
# ----------------
# One run proves nothing: another start set, another seed of the weights, and the curve moves by as much as a strategy
# gains. So run both strategies with several seeds, where the same seed means the same start set and the same initial
# weights for both. Nothing but the choice of images differs within a pair.


def learning_curve(sampler, seed, *, rounds=5, batch=20):
    generator = torch.Generator().manual_seed(seed)
    labeled = torch.zeros(len(pool_images), dtype=torch.bool)
    labeled[torch.randperm(len(pool_images), generator=generator)[:20]] = True
    curve = []
    for _ in range(rounds):
        net = train(pool_images[labeled], pool_labels[labeled], seed=seed)
        curve.append(accuracy(net))
        outputs = torchal.embed(net, pool_images, progress=False)
        view = PoolView.from_tensors(
            features=outputs.features, scores=outputs.logits, labeled=labeled, generator=generator
        )
        labeled[sampler.select(view, batch).indices] = True
    return curve


samplers = {"informative_diverse": InformativeDiverse(), "uniform": Uniform()}
curves = {name: np.array([learning_curve(sampler, seed) for seed in range(5)]) for name, sampler in samplers.items()}

# %%
# The band is Student's 95 % interval of the mean over the five seeds.

bought = 20 + 20 * np.arange(5)
figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
for name, runs in curves.items():
    lower, upper = mean_interval(runs)
    (line,) = axis.plot(bought, runs.mean(0), marker="o", label=name)
    axis.fill_between(bought, lower, upper, alpha=0.2, color=line.get_color(), linewidth=0)
axis.set(xlabel="labels", ylabel="test accuracy")
axis.legend()
plt.show()

# %%
# Bands that overlap do not say that there is no difference, since the runs are paired. The areas under the curves,
# compared seed by seed, do say more:

areas = {name: [area_under_curve(bought, run) for run in runs] for name, runs in curves.items()}
found = compare(areas["informative_diverse"], areas["uniform"])
print(f"mean accuracy on the way: {found['difference']:+.3f} [{found['lower']:+.3f}, {found['upper']:+.3f}]")
print(f"better in {found['wins']} of {found['pairs']} pairs, p = {found['p']:.3f}")

# %%
# With five seeds such an interval is wide, and may well reach to zero where every pair was won. How many it takes to be
# sure of a difference that matters is the business of :doc:`plot_compare_strategies`.
#
# What can go wrong
# -----------------
# * **A network in training mode** gives other logits each time. ``embed`` sets it to evaluation mode for its pass, and
#   back.
# * **A DataLoader that shuffles** would tell rows apart by nothing. ``embed`` takes tensors, data sets and loaders, and
#   refuses a loader that shuffles or leaves rows out.
# * **The wrong layer.** The features are the input of the last ``nn.Linear`` that ran; ``layer=`` names another.
# * **A strategy that learns.** Bandits, and those that keep a graph or a tree of the pool, want to hear of the labels:
#   ``sampler.tell(picks, labels)`` after each round. They warn where it was forgotten. To all others it does no harm.
# * **Labels that come in from people** make the mask the wrong place to keep them. Then use
#   :class:`torchal.ActiveLearner`, which remembers what was asked, by whom it was answered, and what was corrected.
#
# Where to read on: :doc:`plot_images_folder` puts images that lie in a folder before a person,
# :doc:`plot_lightning` does the same with a Trainer, and :doc:`/choosing` says which strategy to begin with.
