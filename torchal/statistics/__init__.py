"""Statistics of learning curves: plain arrays in, plain numbers and dicts out."""

from torchal.statistics.comparisons import compare as compare
from torchal.statistics.comparisons import compare_all as compare_all
from torchal.statistics.comparisons import holm as holm
from torchal.statistics.comparisons import penalty_matrix as penalty_matrix
from torchal.statistics.comparisons import runs_needed as runs_needed
from torchal.statistics.comparisons import signed_rank_probabilities as signed_rank_probabilities
from torchal.statistics.curves import area_under_curve as area_under_curve
from torchal.statistics.curves import data_utilisation as data_utilisation
from torchal.statistics.curves import deficiency as deficiency
from torchal.statistics.curves import labels_to_reach as labels_to_reach
from torchal.statistics.curves import mean_interval as mean_interval
from torchal.statistics.curves import reached as reached
from torchal.statistics.diagnostics import brier_score as brier_score
from torchal.statistics.diagnostics import class_divergence as class_divergence
from torchal.statistics.diagnostics import expected_calibration_error as expected_calibration_error
from torchal.statistics.diagnostics import reliability as reliability
from torchal.statistics.diagnostics import sole_picks as sole_picks
from torchal.statistics.rankings import cliques as cliques
from torchal.statistics.rankings import critical_difference as critical_difference
from torchal.statistics.rankings import friedman as friedman
from torchal.statistics.rankings import nemenyi as nemenyi
