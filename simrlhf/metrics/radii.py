"""How large a set around a fit has to be: by the printed formula, by what is proved, by redraws."""

from __future__ import annotations

import numpy as np

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.core.links import get_link
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult, standard_errors
from simrlhf.estimators.redraws import Redraws
from simrlhf.world import World


def printed_radii(
    world: World, result: FitResult, *, n_pairs: float, confidence: float, constant: float = 1.0
) -> np.ndarray:
    """`zeta_i (N,)` of (B.1), each user with his own `b_i` (audit A7) and `L_1 = 1`.

    It asks for the truth's `nu`, `Sigma_tail` and `b_i`, which only a simulator knows.

    Args:
        n_pairs: the users' mean.
        confidence: `1 - delta`.
        constant: `c_3`, under the root, which the paper leaves open.
    """
    n_users, d1, d2 = world.delta.shape
    rank, delta = world.config.rank, 1.0 - confidence
    diversity = theory.diversity_metrics(world.delta, rank)
    size = theory.log_bracketing_number(
        n_users=n_users, n_pairs=n_pairs, d1=d1, d2=d2, rank=rank, delta=delta,
        model_class="full" if result.estimator == "full" else "share_b",
    )  # fmt: skip
    return np.array(
        [
            theory.confidence_radius(
                log_bracketing=size.value,
                n_users=n_users,
                n_pairs=n_pairs,
                nu=diversity.nu,
                tail_energy=diversity.tail_energy,
                rank=rank,
                d2=d2,
                delta=delta,
                own_bias=float(bias),
                constant=constant,
            ).value
            for bias in diversity.user_bias
        ]
    )


def explicit_radius(preferences: Preferences, result: FitResult, *, confidence: float) -> float:
    """`zeta` with every constant, for a truth in the class: the least of three, each proved.

        ||E_i||_F <= ||E||_F <= 2 a / (s m)                              S2 and S3 (nets)
                     ||E||_F <= (pi^2 / (2 I_min m) sum H^2)^{1/2}       S4
        ||E_i||_F <= 2 R                                                 the class

    Nothing of the truth is asked for, so that this is a recipe; with probability `confidence` it
    holds for all users at once, each of the first two at half of `delta`. The estimate is taken for
    the largest likelihood of its class, which share_b's search cannot prove.

    Raises:
        InputError: no norm bound, the identity link, weights other than 0 and 1.
    """
    link = get_link(preferences.link)
    bound = result.norm_bound
    checks.require(
        bound is not None,
        "an explicit radius needs the norm bound R of the class; fit with a norm_bound",
    )
    assert bound is not None
    checks.require(
        link.is_preference, "scores of link 'identity' are unbounded; take another radius"
    )
    weights = preferences.weights
    checks.require(
        bool(np.isin(weights, (0.0, 1.0)).all()),
        "an explicit radius needs pairs of weight 1; take another radius, or repeat the pairs",
    )
    n_users, d1, d2 = result.delta.shape
    free = result.estimator == "full"
    rank = min(d1, n_users * d2) if free else result.rank
    largest = float(np.linalg.norm(preferences.features[weights > 0], axis=(1, 2)).max())
    margin = theory.worst_margin(
        norm_bound=bound, feature_norm=largest, init_norm=float(np.linalg.norm(result.theta_init))
    )
    constants = theory.link_constants(link, margin=margin)
    smallest, widest = theory.design_extremes(preferences.features, preferences.offsets, weights)
    shape = {"d1": d1, "n_users": n_users, "d2": d2}
    half = 0.5 * (1.0 - confidence)
    noise = theory.net_noise_bound(
        score_width=constants.score_width, largest_design=widest, delta=half, **shape
    )
    # the errors are wanted, and not the distances that follow from them
    by_scores = theory.oracle_inequality(
        noise_norm=theory.noise_norm_bound(noise.value, rank=rank, **shape),
        tail=0.0,
        sigma_k=1.0,
        ceiling=1.0,
        curvature=constants.eta,
        smallest_design=smallest,
        largest_design=widest,
        curvature_bound=link.curvature_bound,
    )
    total = int(weights.sum())
    cover = theory.log_cover_number(
        "full" if free else "share_b",
        rank=rank,
        norm_bound=bound,
        resolution=1.0 / (total * largest),
        **shape,
    )
    laws = theory.hellinger_bound(
        log_cover=cover.value,
        delta=half,
        xi=constants.xi,
        largest_information=constants.largest_information,
        total_pairs=total,
    )
    by_laws = theory.squared_error_bound(
        laws.value,
        smallest_information=constants.smallest_information,
        smallest_design=smallest,
        sigma_k=1.0,
        ceiling=1.0,
    )
    # a bound that does not apply, or has nothing to divide by, is no candidate
    found = [by_scores.terms.get("error", np.nan), by_laws.terms["error"], 2.0 * bound]
    return float(np.nanmin(found))


def redrawn_errors(
    preferences: Preferences, result: FitResult, *, n_bootstrap: int, seed: int
) -> np.ndarray:
    """Errors of refits to labels redrawn from the fit, `(R, N, d1, d2)` (parametric bootstrap).

    Raises:
        InputError: as `standard_errors`.
    """
    found = standard_errors(
        result, preferences, method="bootstrap", n_bootstrap=n_bootstrap, seed=seed
    )
    assert isinstance(found.parts, Redraws)
    return found.parts.delta_of_all() - result.delta
