"""A network's features over a whole data set, in memory or in a file: hooks, batches, precision, resume.

It knows `nn.Module`s and rows, and no classifier, pool or sampler.
"""

from torchal.embedding.embed import embed as embed
