"""The public math of selection: tensors in, tensors out, one file per family of kernels.

Nothing here knows a pool, a model or a config; what makes it fast lives in `torchal.engine`.
"""

from torchal.functional.alfa_mix import alfa_mix as alfa_mix
from torchal.functional.alfa_mix import class_means as class_means
from torchal.functional.alfa_mix import flip_eps as flip_eps
from torchal.functional.badge import badge as badge
from torchal.functional.bald import bald as bald
from torchal.functional.bald import power_bald as power_bald
from torchal.functional.bald import softmax_bald as softmax_bald
from torchal.functional.bald import softrank_bald as softrank_bald
from torchal.functional.batch_bald import JointInformation as JointInformation
from torchal.functional.batch_bald import batch_bald as batch_bald
from torchal.functional.batch_bald import joint_mutual_information as joint_mutual_information
from torchal.functional.cluster_tree import cluster_tree as cluster_tree
from torchal.functional.committee import consensus_kl as consensus_kl
from torchal.functional.committee import variation_ratio as variation_ratio
from torchal.functional.committee import vote_entropy as vote_entropy
from torchal.functional.contrastive import contrastive as contrastive
from torchal.functional.density import density_graph as density_graph
from torchal.functional.density import graph_density as graph_density
from torchal.functional.density import graph_density_greedy as graph_density_greedy
from torchal.functional.density import subtract_picks as subtract_picks
from torchal.functional.drop_query import drop_query as drop_query
from torchal.functional.drop_query import dropout_disagreement as dropout_disagreement
from torchal.functional.epig import epig as epig
from torchal.functional.exp3 import exp3_probabilities as exp3_probabilities
from torchal.functional.exp3 import exp3_update as exp3_update
from torchal.functional.gradient_length import expected_gradient_length as expected_gradient_length
from torchal.functional.fisher import bait as bait
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
from torchal.functional.neighbors import nearest_among as nearest_among
from torchal.functional.quotas import fill_quotas as fill_quotas
from torchal.functional.representatives import cluster_representatives as cluster_representatives
from torchal.functional.selection import Selection as Selection
from torchal.functional.selection import top_n as top_n
from torchal.functional.stochastic_batch import power_scores as power_scores
from torchal.functional.stochastic_batch import softmax_scores as softmax_scores
from torchal.functional.stochastic_batch import softrank_scores as softrank_scores
from torchal.functional.uncertainty import draw_labels as draw_labels
from torchal.functional.uncertainty import entropy as entropy
from torchal.functional.uncertainty import least_confidence as least_confidence
from torchal.functional.uncertainty import log_odds as log_odds
from torchal.functional.uncertainty import margin as margin
