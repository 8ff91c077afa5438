"""The printed bounds on the value that a user loses to the learnt policy (Theorem 4.2 and after).

`gap_i = J(pi_tar; r*_i) - J(pi_hat_i; r*_i)`, `pi_hat_i` the pessimistic policy of Algorithm 1.
No constant is given. They contain the concentrability `C_i`, the scale of features and the
curvature of the link, so none is the same from one design to another.
"""

from __future__ import annotations

import math
from dataclasses import replace

from simrlhf.core import checks
from simrlhf.theory.statement import Bound, ingredient, make_bound, not_applicable, ratio
from simrlhf.theory.subspaces import closeness_terms


def theorem_4_2(
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
    constant: float = 1.0,
    ceiling: float = math.inf,
) -> Bound:
    """Value gap of every user, with probability `1 - delta` (Theorem 4.2, as printed).

        gap_i <= c_2 sqrt( log(N_br / delta) / (N n nu) + (k d2 + log(N / delta)) / n
                           + (1 / nu) sqrt(Sigma_tail / N) + b_i )

    One root over all four. Fails when the truth is not in the set of Algorithm 1
    (`confidence_radius`), and the third term is looser than the truth.

    Args:
        log_bracketing, n_users, n_pairs, nu, tail_energy: as in `theorem_4_1`.
        rank, d2: k and the columns of a deviation.
        delta: failure probability, in (0, 1].
        own_bias: `b_i = ||Delta*_i - Delta^<>_i||_F^2`, an entry of `user_bias` of
            `diversity_metrics`.
        constant: `c_2`.
        ceiling: what no gap exceeds, for instance the range of the values.

    Returns:
        A `Bound` with terms `estimation`, `adaptation`, `bias` and `own_bias`, the four summands.

    Raises:
        InputError: sizes below 1, `delta` outside (0, 1], negative numbers.
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
    return root_bound(terms, factor=constant, ceiling=ceiling, statement="Theorem 4.2")


def corollary_4_1(
    *,
    log_bracketing: float,
    n_users: int,
    n_pairs: float,
    nu: float,
    tail_energy: float,
    rank: int,
    d2: int,
    delta: float,
    constant: float = 1.0,
    ceiling: float = math.inf,
) -> Bound:
    """Mean value gap over the users, with probability `1 - delta` (Corollary 4.1, as printed).

        mean_i gap_i <= c_3 sqrt( log(N_br / delta) / (N n nu) + (k d2 + log(N / delta)) / n
                                  + (1 / nu) sqrt(Sigma_tail / N) )

    Theorem 4.2 without `b_i`. The mean of the `b_i` is `Sigma_tail / N`, and the third term
    absorbs it only if `N >= nu^2 Sigma_tail`; then `c_3 = sqrt(2) c_2` will do. The condition is
    printed in Corollary B.1 alone and depends on the units of rewards: term `condition` says
    whether it holds, and the value is what is printed either way.

    Args:
        log_bracketing, n_users, n_pairs, nu, tail_energy, rank, d2, delta: as in `theorem_4_2`.
        constant: `c_3`.
        ceiling: as in `theorem_4_2`.

    Returns:
        A `Bound` with the three summands as terms, and `condition`, 1 or 0.

    Raises:
        InputError: as `theorem_4_2`.
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
    )
    constant = checks.real("constant", constant, above=0.0)
    bound = root_bound(terms, factor=constant, ceiling=ceiling, statement="Corollary 4.1")
    condition = float(_absorbed(n_users=n_users, nu=nu, tail_energy=tail_energy))
    return replace(bound, terms=bound.terms | {"condition": condition})


def corollary_b_1(
    *,
    log_bracketing: float,
    n_users: int,
    n_pairs: float,
    nu: float,
    tail_energy: float,
    constant: float = 1.0,
    ceiling: float = math.inf,
) -> Bound:
    """Mean value gap over the users as the appendix states it (Corollary B.1, as printed).

        mean_i gap_i <= c_4 sqrt( log(N_br / delta) / (N n) ) + sqrt(Sigma_tail / N)
        provided that N >= nu^2 Sigma_tail

    The condition prints `mu` for `nu`. Nothing proves this right side: the proof below it ends with
    that of Corollary 4.1. It has no `1 / nu`, no cost of the personal factors but what the
    bracketing number holds, no constant at the tail, and the square root of the tail energy.

    Args:
        log_bracketing, n_users, n_pairs, tail_energy: as in `theorem_4_2`.
        nu: of the condition only.
        constant: `c_4`, of the first term only.
        ceiling: as in `theorem_4_2`.

    Returns:
        A `Bound` with terms `estimation` and `bias`, the two summands outside any common root;
        NOT_APPLICABLE where the condition fails.

    Raises:
        InputError: as `theorem_4_2`.
    """
    # at nu = 1 the terms of Theorem 4.1 are the squares of what is printed here
    terms = closeness_terms(
        log_bracketing=log_bracketing,
        n_users=n_users,
        n_pairs=n_pairs,
        nu=1.0,
        tail_energy=tail_energy,
    )
    constant = checks.real("constant", constant, above=0.0)
    if not _absorbed(n_users=n_users, nu=nu, tail_energy=tail_energy):
        return not_applicable(ceiling=ceiling, statement="Corollary B.1")
    estimation = constant * math.sqrt(terms["estimation"])
    return make_bound(
        estimation + terms["bias"],
        terms={"estimation": estimation, "bias": terms["bias"]},
        ceiling=ceiling,
        statement="Corollary B.1",
    )


def gap_terms(
    *,
    log_bracketing: float,
    n_users: int,
    n_pairs: float,
    nu: float,
    tail_energy: float,
    rank: int,
    d2: int,
    delta: float,
) -> dict[str, float]:
    """`estimation`, `adaptation` and `bias`, which Theorem 4.2, its corollary and (B.1) share."""
    terms = closeness_terms(
        log_bracketing=log_bracketing,
        n_users=n_users,
        n_pairs=n_pairs,
        nu=nu,
        tail_energy=tail_energy,
    )
    rank = checks.integer("rank", rank, low=1)
    d2 = checks.integer("d2", d2, low=1)
    delta = checks.real("delta", delta, above=0.0, high=1.0, remedy="a failure probability")
    adaptation = ratio(rank * d2 + math.log(n_users / delta), n_pairs)
    return {
        "estimation": terms["estimation"],
        "adaptation": adaptation,
        "bias": terms["bias"],
    }


def root_bound(terms: dict[str, float], *, factor: float, ceiling: float, statement: str) -> Bound:
    """`factor * sqrt(sum of the terms)`, the shape of every value-gap bound of either paper."""
    value = factor * math.sqrt(sum(terms.values()))
    return make_bound(value, terms=terms, ceiling=ceiling, statement=statement)


def _absorbed(*, n_users: int, nu: float, tail_energy: float) -> bool:
    """Whether `Sigma_tail / N <= (1 / nu) sqrt(Sigma_tail / N)`."""
    nu = ingredient("nu", nu)
    return n_users >= nu * nu * ingredient("tail_energy", tail_energy)
