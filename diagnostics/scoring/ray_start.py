"""Ray, found and started: shared by what scores on it and what takes statistics on it.

Nothing heavy is imported here; Ray itself only when it is asked for.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from diagnostics.errors import InputError


def import_ray() -> Any:
    """Ray with its data module. Raises InputError when it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            where="--ray-workers",
            expected="the package ray",
            got="none installed",
            fix="pip install 'fixed-context-diagnostics[ray]'",
        ) from error
    return ray


def start_ray(ray: Any, workers: int, address: str | None) -> None:
    """Joins a cluster, or begins a Ray of this machine with a CPU for every actor and one more.

    Raises InputError when no cluster answers.
    """
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    local = not address and "RAY_ADDRESS" not in os.environ
    size = {"num_cpus": max(workers + 1, os.cpu_count() or 1)} if local else {}
    try:
        ray.init(address=address, include_dashboard=False if local else None, **size)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            where=f"--ray-address {address or os.environ.get('RAY_ADDRESS', 'local')}",
            expected="a Ray cluster that answers",
            got=" ".join(str(error).split())[:120],
            fix="start one (`ray start --head`) or leave --ray-address out",
        ) from error
