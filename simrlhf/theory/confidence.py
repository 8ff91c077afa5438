"""The radius of the set of rewards that Algorithm 1 is pessimistic over."""

from __future__ import annotations

import math

from simrlhf.core import checks
from simrlhf.theory.statement import Bound, ingredient
from simrlhf.theory.value_gaps import gap_terms, root_bound


def confidence_radius(
    *,
    log_bracketing: float,
    n_users: int,
    n_pairs: float,
    nu: float,
    tail_energy: float,
    rank: int,
    d2: int,
    delta: float,
    own_bias: float,
    feature_norm: float = 1.0,
    constant: float = 1.0,
    ceiling: float = math.inf,
) -> Bound:
    """Radius zeta of the set (3.4) around `Delta_hat_i` ((B.1), as printed).

        zeta = sqrt( c_3 / (2 L_1^2) ( b + log(N_br / delta) / (N n nu)
                     + (1 / nu) sqrt(Sigma_tail / N) + (k d2 + log(N / delta)) / n ) )

    Two weaknesses (audit A7). `b` is printed as `min_i b_i` for every user, so that the truth of a
    user outside the shared subspace need not be in his set, and pessimism proves nothing for him:
    his own `b_i` is needed. And (3.4) compares the *square* of the norm with zeta, already a root;
    the proof uses `||Delta_i - Delta_hat_i||_F <= zeta`, which is what zeta means here. (C.3)
    prints `c_4` times the same root: `feature_norm = 1` and `c_3 = 2 c_4^2`.

    The radius depends on the unknown truth, so it is an analysis and not a recipe.

    Args:
        log_bracketing, n_users, n_pairs, nu, tail_energy, rank, d2, delta: as in `theorem_4_2`.
        own_bias: `b`: `user_bias.min()` as printed, `user_bias[i]` as corrected.
        feature_norm: `L_1`, the largest `||phi||_F`.
        constant: `c_3`, under the root.
        ceiling: a radius that says nothing, for instance 2 R where both matrices lie in a ball.

    Returns:
        A `Bound` with terms `estimation`, `adaptation`, `bias` and `own_bias`, the four summands
        inside the bracket.

    Raises:
        InputError: as `theorem_4_2`; a feature norm that is not positive.
    """
    terms = gap_terms(
        log_bracketing=log_bracketing,
        n_users=n_users,
        n_pairs=n_pairs,
        nu=nu,
        tail_energy=tail_energy,
        rank=rank,
        d2=d2,
        delta=delta,
    ) | {"own_bias": ingredient("own_bias", own_bias)}
    constant = checks.real("constant", constant, above=0.0)
    feature_norm = checks.real("feature_norm", feature_norm, above=0.0)
    return root_bound(
        terms,
        factor=math.sqrt(constant / 2.0) / feature_norm,
        ceiling=ceiling,
        statement="(B.1)",
    )
