"""Trains mini workloads for some updates; prints every recorded number as JSON, with all its bits.

``python repeated.py UPDATES WORKLOAD...``: a program of its own, because the cores that a process
may use are fixed when JAX starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

import jax
import numpy as np
import optax

from timetrial.framework.step import Program
from timetrial.workloads import WORKLOADS


def trained(name: str, updates: int) -> dict[str, Any]:
    """Losses and gradient norms of all updates, the last evaluation, a digest of the state."""
    entry = WORKLOADS[name]
    program = Program(entry.make(entry.settings()), optax.adam(1e-3))
    state, feed = program.init(0), program.feed(0, 0)
    program.compile(state, {})
    rows = []
    for _ in range(updates):
        state, metrics = program.train_step(state, next(feed), {})
        rows.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    feed.close()
    leaves = jax.tree.leaves((state.params, state.model_state, state.opt_state))
    digest = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()
    return {"updates": rows, "evaluation": program.evaluate(state), "state": digest}


if __name__ == "__main__":
    found = {name: trained(name, int(sys.argv[1])) for name in sys.argv[2:]}
    print(json.dumps({"cores": len(os.sched_getaffinity(0)), "found": found}))
