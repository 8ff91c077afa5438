"""Value gaps as Park and others print them, for a shared representation and linear heads.

`d2 = 1`, no tail. Their constants of a link on `|z| <= 2 R_max`: `kappa = 1 / min Phi'`,
`xi = max |Phi' / Phi|`, `eta = min (Phi'^2 - Phi'' Phi) / Phi^2`. For the logistic link they print
`kappa = eta`; by the definitions `kappa = 1 / eta`.
"""

from __future__ import annotations

import math

from simrlhf.core import checks
from simrlhf.theory.statement import Bound, ingredient, make_bound, not_applicable, ratio
from simrlhf.theory.value_gaps import root_bound

F_1_CASES = ("individual", "average")


def park_theorem_3_1(
    *,
    log_bracketing: float,
    n_users: int,
    n_pairs: float,
    rank: int,
    delta: float,
    concentrability: float,
    xi: float = 1.0,
    kappa: float = 1.0,
    eta: float = 1.0,
    regularisation: float = 0.0,
    constant: float = 1.0,
    ceiling: float = math.inf,
) -> Bound:
    """Value gap of a user who gave data, with probability `1 - delta` (Park's Theorem 3.1).

        gap_i <= sqrt( c C_i^2 ( k xi^2 kappa^2 log(N_br / delta) / (eta^2 N n)
                                 + xi^2 (k + log(N / delta)) / (eta^2 n) + lambda B^2 ) )

    The factor k stands for the `1 / nu` of Theorem 4.2: their diversity is `nu >= 1 / k` up to a
    constant.

    Args:
        log_bracketing, n_users, n_pairs: as in `theorem_4_1`.
        rank: k.
        delta: failure probability, in (0, 1].
        concentrability: `C_i`; may be infinite, and the bound then says nothing.
        xi, kappa, eta: constants of the link; `eta = 0` makes the bound VACUOUS.
        regularisation: `lambda B^2`. The statement is for any `lambda > 0`; 0 is its limit.
        constant: `c`, under the root.
        ceiling: what no gap exceeds.

    Returns:
        A `Bound` with terms `estimation`, `adaptation` and `regularisation`, the three summands
        inside the inner bracket.

    Raises:
        InputError: sizes below 1, `delta` outside (0, 1], negative numbers.
    """
    return _ellipsoid(
        everyone=True,
        delta=delta,
        log_bracketing=log_bracketing,
        n_users=n_users,
        n_pairs=n_pairs,
        own_pairs=n_pairs,
        rank=rank,
        concentrability=concentrability,
        link=(xi, kappa, eta),
        regularisation=regularisation,
        constant=constant,
        ceiling=ceiling,
        statement="Park, Theorem 3.1",
    )


def park_theorem_3_2(
    *,
    log_bracketing: float,
    n_users: int,
    n_pairs: float,
    rank: int,
    delta: float,
    concentrability: float,
    own_pairs: float | None = None,
    xi: float = 1.0,
    kappa: float = 1.0,
    eta: float = 1.0,
    regularisation: float = 0.0,
    constant: float = 1.0,
    ceiling: float = math.inf,
) -> Bound:
    """Value gap of a user who comes later, with probability `1 - delta` (Park's Theorem 3.2).

    The representation is that of N earlier users. The formula is `park_theorem_3_1` with
    `log(1 / delta)` for `log(N / delta)`: one user is adapted to, not N at once.

    Args:
        own_pairs: the new user's pairs in the second term; n, as printed, by default.
        log_bracketing, n_users, n_pairs, rank, delta, concentrability, xi, kappa, eta,
            regularisation, constant, ceiling: as in `park_theorem_3_1`, `C_i` of the new user.

    Returns:
        As `park_theorem_3_1`.

    Raises:
        InputError: as `park_theorem_3_1`.
    """
    return _ellipsoid(
        everyone=False,
        delta=delta,
        log_bracketing=log_bracketing,
        n_users=n_users,
        n_pairs=n_pairs,
        own_pairs=n_pairs if own_pairs is None else own_pairs,
        rank=rank,
        concentrability=concentrability,
        link=(xi, kappa, eta),
        regularisation=regularisation,
        constant=constant,
        ceiling=ceiling,
        statement="Park, Theorem 3.2",
    )


def park_theorem_3_3(
    *,
    n_pairs: float,
    rank: int,
    concentrability: float,
    constant: float = 1.0,
    size_constant: float = 1.0,
) -> Bound:
    """Value gap that no method undercuts on every instance (Park's Theorem 3.3, a lower bound).

        inf over methods, sup over instances of gap >= C Lambda sqrt(k / n)
        for k > 6, n >= C k Lambda^2 and Lambda >= 2

    Instances are bandits (`H = 1`) whose concentrability, with the empirical denominator, is at
    most `Lambda`. It is about the worst of them: on a fixed one the gap may fall faster.

    Args:
        n_pairs: n.
        rank: k.
        concentrability: `Lambda`.
        constant: `C` of the value.
        size_constant: `C` of the condition on n; both are the same letter in print.

    Returns:
        A `Bound` with terms `rank` and `concentrability`. Its value bounds from below, so it has
        no ceiling and is VACUOUS for undefined numbers only; NOT_APPLICABLE where a condition
        fails.

    Raises:
        InputError: numbers that are negative or, for n and the constants, zero.
    """
    n_pairs = checks.real("n_pairs", n_pairs, above=0.0)
    rank = checks.integer("rank", rank, low=1)
    scale = ingredient("concentrability", concentrability)
    constant = checks.real("constant", constant, above=0.0)
    needed = checks.real("size_constant", size_constant, above=0.0) * rank * (scale * scale)
    statement = "Park, Theorem 3.3"
    if rank <= 6 or n_pairs < needed or scale < 2.0:
        return not_applicable(ceiling=math.inf, statement=statement)
    return make_bound(
        constant * scale * math.sqrt(rank / n_pairs),
        terms={"rank": rank, "concentrability": scale},
        ceiling=math.inf,
        statement=statement,
    )


def park_theorem_f_1(
    *,
    log_bracketing: float,
    n_users: int,
    n_pairs: float,
    concentrability: float,
    kappa: float = 1.0,
    case: str = "individual",
    constant: float = 1.0,
    ceiling: float = math.inf,
) -> Bound:
    """Value gap without any assumption of diversity (Park's Theorem F.1 and Corollary F.1).

    * `individual`: `gap_i <= sqrt( c kappa^2 C_i^2 log(N_br / delta) / n )`;
    * `average`: `mean_i gap_i <= sqrt( c kappa^2 C_max^2 log(N_br / delta) / (N n) )`, which is
      printed for the sum.

    Args:
        log_bracketing, n_users, n_pairs: as in `theorem_4_1`; one user alone gains nothing from
            the others here.
        concentrability: `C_i`, or the largest of them for the average.
        kappa: constant of the link.
        case: one of the two above.
        constant: `c`, under the root.
        ceiling: what no gap exceeds.

    Returns:
        A `Bound` with term `estimation`, `kappa^2 log(N_br / delta) / n` or the same over `N n`.

    Raises:
        InputError: an unknown case, sizes below 1, negative numbers.
    """
    checks.choice("case of Theorem F.1", case, F_1_CASES)
    n_users = checks.integer("n_users", n_users, low=1)
    pairs = checks.real("n_pairs", n_pairs, above=0.0) * (n_users if case == "average" else 1)
    kappa = ingredient("kappa", kappa)
    estimation = kappa * kappa * ingredient("log_bracketing", log_bracketing)
    return root_bound(
        {"estimation": estimation / pairs},
        factor=_outside(constant, concentrability),
        ceiling=ceiling,
        statement=f"Park, Theorem F.1 ({case})",
    )


def _ellipsoid(
    *,
    everyone: bool,
    delta: float,
    log_bracketing: float,
    n_users: int,
    n_pairs: float,
    own_pairs: float,
    rank: int,
    concentrability: float,
    link: tuple[float, float, float],
    regularisation: float,
    constant: float,
    ceiling: float,
    statement: str,
) -> Bound:
    """Theorems 3.1 and 3.2, which differ in how many users are adapted to, and by whose pairs."""
    rank = checks.integer("rank", rank, low=1)
    if link[2] < 0.0:  # not log-concave on the interval: the theorems assume it
        return not_applicable(ceiling=ceiling, statement=statement)
    xi, kappa, eta = (
        ingredient(name, value) for name, value in zip(("xi", "kappa", "eta"), link, strict=True)
    )
    n_users = checks.integer("n_users", n_users, low=1)
    delta = checks.real("delta", delta, above=0.0, high=1.0, remedy="a failure probability")
    confidence = math.log((n_users if everyone else 1) / delta)
    n_pairs = checks.real("n_pairs", n_pairs, above=0.0)
    own_pairs = checks.real("own_pairs", own_pairs, above=0.0)
    # products, not powers: a float's power overflows with an error, a product to infinity
    size = rank * (kappa * kappa) * ingredient("log_bracketing", log_bracketing)
    return root_bound(
        {
            "estimation": ratio(xi * xi * size, eta * eta * n_users * n_pairs),
            "adaptation": ratio(xi * xi * (rank + confidence), eta * eta * own_pairs),
            "regularisation": ingredient("regularisation", regularisation),
        },
        factor=_outside(constant, concentrability),
        ceiling=ceiling,
        statement=statement,
    )


def _outside(constant: float, concentrability: float) -> float:
    """`sqrt(c) C_i`, what stands before the root once `C_i^2` is taken out of it."""
    constant = checks.real("constant", constant, above=0.0)
    return math.sqrt(constant) * ingredient("concentrability", concentrability)
