"""The math: tensors in, tensors out. Nothing here knows a pool, a model or a config."""

from torchal.functional.density import density_graph as density_graph
from torchal.functional.density import graph_density as graph_density
from torchal.functional.density import graph_density_greedy as graph_density_greedy
from torchal.functional.density import subtract_picks as subtract_picks
from torchal.functional.k_center import Assignment as Assignment
from torchal.functional.k_center import Cover as Cover
from torchal.functional.k_center import assign_to_centers as assign_to_centers
from torchal.functional.k_center import k_center_greedy as k_center_greedy
from torchal.functional.kmeans import Clusters as Clusters
from torchal.functional.kmeans import kmeans as kmeans
from torchal.functional.kmeans import kmeans_plus_plus as kmeans_plus_plus
from torchal.functional.neighbors import Neighbors as Neighbors
from torchal.functional.neighbors import knn_graph as knn_graph
from torchal.functional.selection import Selection as Selection
from torchal.functional.selection import top_n as top_n
from torchal.functional.uncertainty import entropy as entropy
from torchal.functional.uncertainty import least_confidence as least_confidence
from torchal.functional.uncertainty import margin as margin
