"""
A LightningModule and its Trainer
=================================

Your training lives in a ``LightningModule``, with a ``Trainer`` that knows about devices, precision and checkpoints.
Active learning needs two things of it: a data module that trains on the labeled rows only, and one pass over the pool
between two fits. Neither changes the module. This tutorial adds both, first around the Trainer, then as a callback
inside of it.
"""

# %%
# The module is yours
# -------------------
# Handwritten digits of scikit-learn, and a module as one would write it for them with all labels.

import logging
import warnings

import lightning
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import torchal
from torchal import PoolView
from torchal.samplers import InformativeDiverse, Uniform

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")  # hints on workers and logging steps, for runs of half a second


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def test_step(self, batch, _):
        x, y = batch
        self.log("accuracy", (self(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


# %%
# A data module that knows what is labeled
# ----------------------------------------
# It holds the whole pool and one mask. ``train_dataloader`` gives the labeled rows; ``buy`` moves rows over. In a
# simulation the labels are there all along, and the mask is what keeps them secret.

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
everything = TensorDataset(images, torch.tensor(digits.target))
order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0)).tolist()
pool, test = Subset(everything, order[:1297]), Subset(everything, order[1297:])


class PoolData(lightning.LightningDataModule):
    def __init__(self, pool, test, *, start, seed):
        super().__init__()
        self.pool, self.test = pool, test
        self.generator = torch.Generator().manual_seed(seed)
        self.labeled = torch.zeros(len(pool), dtype=torch.bool)
        self.buy(torch.randperm(len(pool), generator=self.generator)[:start])

    def buy(self, rows):
        self.labeled[rows] = True

    def train_dataloader(self):
        rows = self.labeled.nonzero().squeeze(1).tolist()
        return DataLoader(Subset(self.pool, rows), batch_size=32, shuffle=True)

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=500)


# %%
# Around the Trainer
# ------------------
# One fit, one pass, one selection, again. :func:`torchal.embed` takes the LightningModule as what it is, an
# ``nn.Module``; of each item of the pool it looks at the image, not at the label.


def choose(module, data, sampler, n):
    outputs = torchal.embed(module, data.pool, progress=False)
    view = PoolView.from_tensors(
        features=outputs.features, scores=outputs.logits, labeled=data.labeled, generator=data.generator
    )
    return sampler.select(view, n).indices


def trainer(epochs, **settings):
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **settings,
    )  # fmt: skip


def play(sampler, seed, rounds=4):
    data = PoolData(pool, test, start=20, seed=seed)
    curve = []
    for _ in range(rounds):
        lightning.seed_everything(seed, verbose=False)
        module = Digits()
        fitting = trainer(epochs=20)
        fitting.fit(module, data)
        curve.append(fitting.test(module, data, verbose=False)[0]["accuracy"])
        data.buy(choose(module, data, sampler, 20))
    return curve


figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
bought = [20, 40, 60, 80]
for sampler, colour in ((InformativeDiverse(), "tab:blue"), (Uniform(), "tab:orange")):
    curves = torch.tensor([play(sampler, seed) for seed in range(3)])
    name = type(sampler).__name__
    axis.plot(bought, curves.T, color=colour, alpha=0.35, linewidth=1)
    axis.plot(bought, curves.mean(0), color=colour, marker="o", label=name)
    print(f"{name:>18}:", "  ".join(f"{value:.3f}" for value in curves.mean(0)))
axis.set(xlabel="labels", ylabel="test accuracy", xticks=bought)
axis.legend()
plt.show()

# %%
# The thin lines are the three seeds. They show what there is to see, a tendency; how many seeds it takes to say more is
# in :doc:`plot_compare_strategies`.
#
# Inside the Trainer
# ------------------
# Where a fit is expensive, one does not want to begin anew for each batch of labels. A callback can buy labels while
# the training goes on: every ten epochs it runs the pass and the selection, and
# ``reload_dataloaders_every_n_epochs=1`` makes the Trainer ask the data module again, which now has more rows.


class BuyLabels(lightning.Callback):
    def __init__(self, sampler, *, n, every, budget):
        self.sampler, self.n, self.every, self.budget = sampler, n, every, budget

    def on_train_epoch_end(self, trainer, module):
        data = trainer.datamodule
        left = self.budget - int(data.labeled.sum())
        if (trainer.current_epoch + 1) % self.every == 0 and left > 0:
            data.buy(choose(module, data, self.sampler, min(self.n, left)))
            print(f"epoch {trainer.current_epoch + 1}: {int(data.labeled.sum())} labels")


lightning.seed_everything(0, verbose=False)
module, data = Digits(), PoolData(pool, test, start=20, seed=0)
callback = BuyLabels(InformativeDiverse(), n=20, every=10, budget=80)
fitting = trainer(epochs=50, callbacks=[callback], reload_dataloaders_every_n_epochs=1)
fitting.fit(module, datamodule=data)
print(f"accuracy {fitting.test(module, data, verbose=False)[0]['accuracy']:.3f}")

# %%
# This takes fewer epochs in all, and the network remembers the first rows best: it has seen them most often. Where the
# last point of accuracy counts, train once more from the start when all labels are there.
#
# What can go wrong
# -----------------
# * **Selecting in the middle of an epoch** would choose by weights that are on their way. ``on_train_epoch_end`` is
#   late enough; ``embed`` sets the module to evaluation mode for its pass, and back.
# * **Several devices.** Under DDP each process would choose by itself. Choose on rank 0 and broadcast the rows, or give
#   each rank its part of the pool and ``group=``, see :doc:`plot_many_rows`.
# * **Lightning's checkpoint** does not hold the mask. Give the data module ``state_dict`` and ``load_state_dict`` that
#   do; Lightning saves and restores them with the rest.
