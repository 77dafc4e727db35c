"""A network's features over a whole data set, in memory, in a file or in shards: hooks, batches, precision, resume.

It knows `nn.Module`s and rows, and no classifier, pool or sampler.
"""

from torchal.embedding.embed import embed as embed
from torchal.embedding.shards import Shard as Shard
from torchal.embedding.shards import ShardedFeatures as ShardedFeatures
from torchal.embedding.shards import open_shards as open_shards
