"""The statements of the theory as functions of plain numbers and arrays.

Nothing here sees a simulated world, an estimator or a measurement. `vec` is C order throughout
(`theory.information`).
"""

from simrlhf.theory.bracketing import class_dimension, log_bracketing_number
from simrlhf.theory.brackets import Brackets, bracket_ends, brackets_cover, construct_brackets
from simrlhf.theory.concentration import (
    bernstein_noise_bound,
    concentrated_distance,
    largest_score,
    net_noise_bound,
    noise_norm_bound,
    score_variance,
)
from simrlhf.theory.confidence import confidence_radius
from simrlhf.theory.covers import log_bracketing_bound, log_cover_number
from simrlhf.theory.diversity import DiversityMetrics, diversity_metrics
from simrlhf.theory.efficient_score import efficient_score_step
from simrlhf.theory.gaussian_limits import gaussian_limits, seen_directions
from simrlhf.theory.hellinger import (
    chi_squares,
    hellinger_bound,
    hellinger_squares,
    squared_error_bound,
)
from simrlhf.theory.information import isotropic_fisher
from simrlhf.theory.ingredients import (
    bregman_divergence,
    bregman_ratio,
    curvature_floor,
    design_extremes,
    noise_norm,
    worst_margin,
)
from simrlhf.theory.isotropic_limits import IsotropicLimits, isotropic_limits
from simrlhf.theory.limits import (
    SubspaceLimit,
    excess_log_loss,
    parameter_count,
    reward_covariances,
    subspace_limit,
)
from simrlhf.theory.link_constants import LinkConstants, link_constants
from simrlhf.theory.new_users import (
    missed_truth,
    new_user_bound,
    new_user_covariances,
    new_user_limit,
    new_user_noise_bound,
)
from simrlhf.theory.pairs_needed import pairs_needed
from simrlhf.theory.park import (
    park_theorem_3_1,
    park_theorem_3_2,
    park_theorem_3_3,
    park_theorem_f_1,
)
from simrlhf.theory.pessimism import greedy_bound, pessimism_bound
from simrlhf.theory.restricted import restricted_design, restricted_oracle_inequality
from simrlhf.theory.sample_size import (
    LARGEST_SAMPLE,
    limit_sample_size,
    smallest_sample,
    theorem_4_1_sample_size,
)
from simrlhf.theory.statement import Bound, BoundStatus, make_bound, not_applicable
from simrlhf.theory.subspaces import (
    distance_ceiling,
    geometry_bound,
    oracle_inequality,
    theorem_4_1,
)
from simrlhf.theory.value_gap_limit import (
    gaussian_value_gap_limit,
    greedy_value_gap_limit,
    normal_value_gap,
)
from simrlhf.theory.value_gaps import corollary_4_1, corollary_b_1, theorem_4_2

__all__ = [
    "LARGEST_SAMPLE",
    "Bound",
    "BoundStatus",
    "Brackets",
    "DiversityMetrics",
    "IsotropicLimits",
    "LinkConstants",
    "SubspaceLimit",
    "bernstein_noise_bound",
    "bracket_ends",
    "brackets_cover",
    "bregman_divergence",
    "bregman_ratio",
    "chi_squares",
    "class_dimension",
    "concentrated_distance",
    "confidence_radius",
    "construct_brackets",
    "corollary_4_1",
    "corollary_b_1",
    "curvature_floor",
    "design_extremes",
    "distance_ceiling",
    "diversity_metrics",
    "efficient_score_step",
    "excess_log_loss",
    "gaussian_limits",
    "gaussian_value_gap_limit",
    "geometry_bound",
    "greedy_bound",
    "greedy_value_gap_limit",
    "hellinger_bound",
    "hellinger_squares",
    "isotropic_fisher",
    "isotropic_limits",
    "largest_score",
    "limit_sample_size",
    "link_constants",
    "log_bracketing_bound",
    "log_bracketing_number",
    "log_cover_number",
    "make_bound",
    "missed_truth",
    "net_noise_bound",
    "new_user_bound",
    "new_user_covariances",
    "new_user_limit",
    "new_user_noise_bound",
    "noise_norm",
    "noise_norm_bound",
    "normal_value_gap",
    "not_applicable",
    "oracle_inequality",
    "pairs_needed",
    "parameter_count",
    "park_theorem_3_1",
    "park_theorem_3_2",
    "park_theorem_3_3",
    "park_theorem_f_1",
    "pessimism_bound",
    "restricted_design",
    "restricted_oracle_inequality",
    "reward_covariances",
    "score_variance",
    "seen_directions",
    "smallest_sample",
    "squared_error_bound",
    "subspace_limit",
    "theorem_4_1",
    "theorem_4_1_sample_size",
    "theorem_4_2",
    "worst_margin",
]
