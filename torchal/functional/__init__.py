"""The public math of selection: tensors in, tensors out, one file per family of kernels.

Nothing here knows a pool, a model or a config; what makes it fast lives in `torchal.engine`.
"""

from torchal.functional.cluster_tree import cluster_tree as cluster_tree
from torchal.functional.density import density_graph as density_graph
from torchal.functional.density import graph_density as graph_density
from torchal.functional.density import graph_density_greedy as graph_density_greedy
from torchal.functional.density import subtract_picks as subtract_picks
from torchal.functional.exp3 import exp3_probabilities as exp3_probabilities
from torchal.functional.exp3 import exp3_update as exp3_update
from torchal.functional.expected_error import expected_error_of_refits as expected_error_of_refits
from torchal.functional.expected_error import expected_error_reduction as expected_error_reduction
from torchal.functional.hierarchy import ClusterTree as ClusterTree
from torchal.functional.k_center import Assignment as Assignment
from torchal.functional.k_center import Cover as Cover
from torchal.functional.k_center import assign_to_centers as assign_to_centers
from torchal.functional.k_center import k_center_greedy as k_center_greedy
from torchal.functional.kmeans import Clusters as Clusters
from torchal.functional.kmeans import kmeans as kmeans
from torchal.functional.kmeans import kmeans_plus_plus as kmeans_plus_plus
from torchal.functional.kmeans import nearest_rows as nearest_rows
from torchal.functional.margin_clusters import inside_margin as inside_margin
from torchal.functional.margin_clusters import margin_cluster_mean as margin_cluster_mean
from torchal.functional.neighbors import Neighbors as Neighbors
from torchal.functional.neighbors import knn_graph as knn_graph
from torchal.functional.quotas import fill_quotas as fill_quotas
from torchal.functional.selection import Selection as Selection
from torchal.functional.selection import top_n as top_n
from torchal.functional.uncertainty import draw_labels as draw_labels
from torchal.functional.uncertainty import entropy as entropy
from torchal.functional.uncertainty import least_confidence as least_confidence
from torchal.functional.uncertainty import log_odds as log_odds
from torchal.functional.uncertainty import margin as margin
