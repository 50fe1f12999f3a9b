"""Variances of coefficients clustered by prompt, from matrices of the size of a model.

For least squares with clusters g, N_g = X_g'X_g and A = sum of N_g = L L', the residuals of g are
multiplied by f(H_gg), H_gg = X_g A^-1 X_g', which is as large as the cluster. But X_g' f(H_gg) =
f(N_g A^-1) X_g', so that the effect of g on c'b is

    d' f(M_g) L^-1 X_g'e_g,    M_g = L^-1 N_g L^-T (p x p, eigenvalues 0 to 1),    d = L^-1 c,

with f(z) = 1 (cr1), (1 - z)^(-1/2) (cr2) or 1 / (1 - z) (cr3, the jackknife). At z = 1 f is 0, the
pseudo-inverse. Not covered: what is a coefficient and which factors and degrees of freedom go with
a variance (`robust`).

Axes: `g` clusters, `p` columns of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diagnostics.statistics.inference.estimators import Floats

RobustKind = Literal["cr1", "cr2", "cr3"]
FULL_LEVERAGE = 1e-8  # 1 - leverage below this: a direction that one cluster alone determines
LOADED = 1e-6  # share of d along such a direction that is above rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """One model.

    Fields: `whiten` L^-1 (p, p); `leverage` eigenvalues of M_g (g, p) and their `basis` (g, p, p);
    `scores` L^-1 X_g'e_g (g, p).
    """

    whiten: Floats
    leverage: Floats
    basis: Floats
    scores: Floats

    def along(self, weights: Floats) -> Floats:
        """d of c = `weights` (p,) in the basis of each cluster, (g, p)."""
        return np.asarray(np.einsum("gij,i->gj", self.basis, self.whiten @ weights))


def pieces_of(own: Floats, moments: Floats, beta: Floats) -> Pieces:
    """From N_g (g, p, p), X_g'y_g (g, p) and the coefficients (p,)."""
    whiten = np.linalg.inv(np.linalg.cholesky(own.sum(axis=0)))
    leverage, basis = np.linalg.eigh(whiten @ own @ whiten.T)
    scores = (moments - own @ beta) @ whiten.T
    return Pieces(whiten=whiten, leverage=leverage, basis=basis, scores=scores)


def alone(pieces: Pieces, weights: Floats) -> NDArray[np.bool_]:
    """The clusters (g,) without which c'b is not determined."""
    along = pieces.along(weights)
    loaded = np.abs(along) > LOADED * np.linalg.norm(pieces.whiten @ weights)
    return np.asarray(((1.0 - pieces.leverage < FULL_LEVERAGE) & loaded).any(axis=1))


def variance(pieces: Pieces, weights: Floats, kind: RobustKind) -> float:
    """Sum of squared effects on c'b, before any factor."""
    adjusted = _back(pieces, _multiplier(pieces.leverage, kind) * pieces.along(weights))
    return float((np.einsum("gi,gi->g", adjusted, pieces.scores) ** 2).sum())


def satterthwaite(pieces: Pieces, weights: Floats) -> float:
    """Degrees of freedom of cr2 for c'b, errors being alike and independent.

    Then the effects have the covariance C = delta_gh d'f M_g f d - (f M_g d)'(f M_h d). The
    variance estimate being the sum of squared effects, it has (trace C)^2 / trace C^2 degrees of
    freedom; C (g, g) is never written out.
    """
    root, along = _multiplier(pieces.leverage, "cr2"), pieces.along(weights)
    own = (root**2 * pieces.leverage * along**2).sum(axis=1)
    shared = _back(pieces, root * pieces.leverage * along)
    lengths = (shared**2).sum(axis=1)
    square = (own * (own - 2 * lengths)).sum() + ((shared.T @ shared) ** 2).sum()
    return float((own.sum() - lengths.sum()) ** 2 / square)


def _back(pieces: Pieces, coordinates: Floats) -> Floats:
    """Vectors (g, p) from their coordinates in the basis of each cluster."""
    return np.asarray(np.einsum("gij,gj->gi", pieces.basis, coordinates))


def _multiplier(leverage: Floats, kind: RobustKind) -> Floats:
    """f of eigenvalues, (g, p)."""
    left = 1.0 - leverage
    full = left < FULL_LEVERAGE
    inverse = np.where(full, 0.0, 1.0 / np.where(full, 1.0, left))
    return {"cr1": np.ones_like(left), "cr2": np.sqrt(inverse), "cr3": inverse}[kind]
