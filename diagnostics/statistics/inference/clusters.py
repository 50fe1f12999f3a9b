"""What a cluster is: the prompt. Every interval takes membership from here.

Several rollouts of one prompt are one cluster. Clusters are numbered by sorted prompt id, so
nothing depends on the order of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError


@dataclass(frozen=True, slots=True)
class Clusters:
    """Fields: `names` (clusters,) sorted prompt ids; `of_row` (pos,) int64, each row's cluster."""

    names: NDArray[np.object_]
    of_row: NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(self.names)

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of `values` (pos,) within each cluster, (clusters,)."""
        return np.bincount(self.of_row, values, self.count).astype(np.float64)

    def sizes(self) -> NDArray[np.float64]:
        """How many rows each cluster has, (clusters,)."""
        return np.bincount(self.of_row, minlength=self.count).astype(np.float64)

    def subset(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Clusters:
        """The same clusters over some of the rows."""
        return Clusters(names=self.names, of_row=self.of_row[rows])


def prompt_clusters(frame: pd.DataFrame) -> Clusters:
    """Clusters of a token table's rows.

    Raises InputError when the column `prompt_id` is missing or has a null.
    """
    return _named(frame, "prompt_id", "it is the cluster")


def rollouts(frame: pd.DataFrame) -> Clusters:
    """The rollouts that a token table's rows are of: parts of clusters, for designs of studies.

    Raises InputError when the column `context_id` is missing or has a null.
    """
    return _named(frame, "context_id", "it is the rollout")


def single_rows(count: int) -> Clusters:
    """Each of `count` rows by itself, for designs of studies."""
    rows = np.arange(count)
    return Clusters(names=rows.astype(object), of_row=rows)


def _named(frame: pd.DataFrame, column: str, meaning: str) -> Clusters:
    """Rows by the sorted values of a column of ids."""
    if column not in frame.columns or frame[column].isna().any():
        raise InputError(
            where="token table",
            expected=f"a {column} in every row: {meaning}",
            got="no such column" if column not in frame.columns else "a null",
            fix="write the table with `diagnostics tokens`",
        )
    codes, found = _coded(frame[column])
    names, rank = np.unique(found, return_inverse=True)
    return Clusters(names=names, of_row=rank[codes].astype(np.int64))


def _coded(labels: pd.Series) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Codes (pos,) into the labels that occur; a categorical column has them nearly ready."""
    if not isinstance(labels.dtype, pd.CategoricalDtype):
        codes, found = pd.factorize(labels)
        return codes, np.asarray(found, dtype=object)
    given = labels.cat.codes.to_numpy()
    occurs = np.bincount(given, minlength=len(labels.cat.categories)) > 0
    place = np.cumsum(occurs) - 1
    return place[given], np.asarray(labels.cat.categories, dtype=object)[occurs]
