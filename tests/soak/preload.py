"""Imports what every command needs; the server of ``processes`` does so once.

Boundary: tests only; starts no JAX backend, so that processes can be forked from the server.
"""

import jax
import mlflow.store.tracking.sqlalchemy_store
import optuna
import orbax.checkpoint

import timetrial.bench.cli
import timetrial.bench.commands.running
import timetrial.bench.doctor.command
import timetrial.bench.metatrain.command
import timetrial.bench.race
import timetrial.bench.tune.study

LOADED = (jax, mlflow, optuna, orbax, timetrial)
