"""
More rows than fit into memory
==============================

A pool of a million images is 2 GB of features, one of a hundred million does not fit into most machines, and both are
ordinary. Here is how selection reads features from files, chunk by chunk, and how several processes share them out and
still pick the very same rows as one. The sizes are small enough to be run in seconds; what the same lines cost with
100 million rows was measured and is quoted.
"""

# %%
# A data set that is never in memory
# ----------------------------------
# Handwritten digits of scikit-learn again, each moved by up to two pixels in both directions: 44 925 images, which are
# made when they are asked for. Yours read a file or a bucket there.

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset

import torchal
from torchal import FileRows, functional
from torchal.embedding import open_shards

digits = load_digits()
originals, labels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)


class Moved(Dataset):
    def __len__(self):
        return 25 * len(originals)

    def __getitem__(self, row):
        image, (down, right) = originals[row // 25], divmod(row % 25, 5)
        return nn.functional.pad(image, (right, 4 - right, down, 4 - down))


images = Moved()
names = [f"digit{row // 25:04}_{row % 25:02}.png" for row in range(len(images))]

# %%
# A network that has seen some of it, as the backbone from elsewhere that you have.

torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(),
    nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 10),
)  # fmt: skip
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
for _ in range(150):
    rows = torch.randint(len(images), (64,)).tolist()
    loss = nn.functional.cross_entropy(net(torch.stack([images[row] for row in rows])), labels[[r // 25 for r in rows]])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# Once: features into shards
# --------------------------
# With a folder as ``out``, :func:`torchal.embed` writes numbered files with the ids of their rows. It can be killed at
# any moment and goes on where it stopped; under ``torchrun`` and with ``group=`` many processes fill the folder
# together.

workspace = tempfile.TemporaryDirectory()
folder = Path(workspace.name, "embedded")
torchal.embed(net.eval(), images, out=folder, shard_rows=10_000, ids={"image": names}, batch_size=500, progress=False)
for path in sorted(path for path in folder.rglob("*") if path.is_file()):
    print(f"{path.relative_to(folder)!s:<30}{path.stat().st_size / 1e6:6.2f} MB")

# %%
# Again and again: selection from files
# -------------------------------------
# What :func:`torchal.embedding.open_shards` gives is taken as features wherever a tensor is. It is read by ordinary
# reads, a chunk at a time, since pages of a memory map that were touched count as memory in use.

shards = open_shards(folder)
features = shards.features()
print(features)
picks = functional.k_center_greedy(features, 200)
print("to label:", shards.ids(picks.indices[:3]))

# %%
# Files of your own need no shards: ``FileRows([...])`` puts ``.npy`` files one behind the other, and
# ``numpy.load(..., mmap_mode="r")`` is taken as it is. All of them pick the same.

parts = FileRows(sorted((folder / "img_emb").glob("*.npy")))
mapped = np.load(folder / "img_emb" / "img_emb_0.npy", mmap_mode="r")
print(functional.k_center_greedy(parts, 200).indices.equal(picks.indices))
print(
    functional.k_center_greedy(mapped, 50).indices.equal(functional.k_center_greedy(torch.tensor(mapped), 50).indices)
)

# %%
# What was it worth? The *cover radius* is how far the farthest row of the pool is from its nearest pick. The scores of
# k-center are just that, as it was before each pick; of random rows it is the distance of what k-center would pick
# next.

sizes = [10, 25, 50, 100, 200]
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
at_random = []
for size in sizes:
    labeled = torch.zeros(len(images), dtype=torch.bool)
    labeled[order[:size]] = True
    at_random.append(float(functional.k_center_greedy(features, 1, labeled=labeled).scores))
figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
axis.plot(range(1, 200), picks.scores[1:], label="k_center")
axis.plot(sizes, at_random, "o--", label="uniform")
axis.set(xscale="log", xlabel="picks", ylabel="cover radius")
axis.legend()
plt.show()

# %%
# Several processes
# -----------------
# Each process says which rows it holds, here by an even cut that may go through the middle of a file, and ``group=``.
# The picks are the same on all of them, and those of one process that holds everything, ties included.

program = Path(workspace.name, "pick.py")
program.write_text("""
import sys

import torch

from torchal.distributed import Shards, join
from torchal.embedding import open_shards
from torchal.functional import k_center_greedy

group = Shards(join())  # gloo here, NCCL where there are GPUs
shards = open_shards(sys.argv[1])
part = shards.part(group.rank, group.world_size)
picks = k_center_greedy(shards.features(part), 200, group=group)
line = f"rank {group.rank}: rows {part.start} to {part.stop - 1}, {group.rounds} rounds"
print(f"{line}, {group.received_bytes / 1e6:.1f} MB received", flush=True)
if group.rank == 0:
    torch.save(picks.indices, sys.argv[2])
""")
print(program.read_text())

# %%
# In a shell it is ``torchrun --standalone --nproc-per-node 2 pick.py embedded picks.pt``.

command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
paths = os.pathsep.join([str(Path(torchal.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
done = subprocess.run(
    [*command, str(folder), str(Path(workspace.name, "picks.pt"))],
    env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "TMPDIR": workspace.name},  # where torchrun logs
    capture_output=True, text=True, check=False,
)  # fmt: skip
if done.returncode:
    raise RuntimeError(done.stderr)
print("\n".join(sorted(done.stdout.split("\n"))).strip())
print("the same picks:", torch.load(Path(workspace.name, "picks.pt")).equal(picks.indices))
workspace.cleanup()

# %%
# And with 100 million rows?
# --------------------------
# One core, 64 columns in bfloat16 in four files of 12.8 GB together, none of it in the system's cache, 1 000 picks;
# ``python -m benchmarks.hundred_million`` measures it on your machine, and :doc:`/guides/distributed` has the rest of
# the table and what many ranks cost.
#
# ======================================  =======  ======  =============
# what                                    seconds  passes  memory in all
# ======================================  =======  ======  =============
# ``k_center_greedy``                     111      6       1.89 GB
# ``kmeans_plus_plus``                    32       2       1.81 GB
# ``top_n(margin(log_probs), 1000)``      6.7      1       0.98 GB
# ``uniform``                             0.4      0       0.86 GB
# ======================================  =======  ======  =============
#
# Reading the files once takes 10 s, so that an SSD is fast enough: products are what is waited for.
#
# What can go wrong
# -----------------
# * **Compressed files.** ``.npz`` and Parquet have no rows that can be read singly; ``open_shards(...).to_npy(...)``
#   writes them once as what can.
# * **Scores of a model** are small (a few numbers a row): read them whole, and only features from files.
# * **Different processors** in one group may round differently; k-center raises where the ranks' picks differ.
# * **A killed rank** ends all, with an error that names it. A selection then begins anew, ``embed`` where it stopped.
#
# Without Python: ``torchrun --nproc-per-node 8 -m torchal query --shards embedded/ --strategy k_center --budget 10000
# --out next.csv``. The layout of the folder is in :doc:`/guides/shards`.
