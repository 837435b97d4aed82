"""A small stand-in of google/learned_optimization: its interface, and a VeLO in its place."""

from __future__ import annotations

import textwrap
from pathlib import Path

BASE = '''
import flax
import jax
import jax.numpy as jnp

@flax.struct.dataclass
class SGDState:
    params: object
    model_state: object
    iteration: object

class Optimizer:
    def get_params(self, state):
        return state.params

    def set_params(self, state, params):
        return state.replace(params=params)

class SGD(Optimizer):
    """Gradient descent, as a user of the library would write it."""

    def __init__(self, learning_rate=0.01, nesterov=False):
        if nesterov:
            raise ValueError("nesterov is not supported")
        self.learning_rate = learning_rate

    def init(self, params, model_state=None, num_steps=None, key=None):
        return SGDState(params, model_state, 0)

    def update(self, opt_state, grad, loss=None, model_state=None, key=None, **kwargs):
        params = jax.tree.map(lambda p, g: p - self.learning_rate * g, opt_state.params, grad)
        return SGDState(params, model_state, opt_state.iteration + 1)
'''

PREFAB = '''
import flax
import optax
from learned_optimization.optimizers.base import Optimizer
from timetrial.optimizers.velo import velo
from timetrial.optimizers.velo.weights import embedded_weights

@flax.struct.dataclass
class State:
    params: object
    inner: object

class LearnedOptimizer(Optimizer):
    """Keeps the parameters, and takes the number of steps at construction, like the library's."""

    def __init__(self, num_training_steps=None, num_steps=None):
        self.tx = velo(num_steps or num_training_steps, meta_params=embedded_weights().meta_params)

    def init(self, params, model_state=None, num_steps=None, key=None):
        return State(params, self.tx.init(params))

    def update(self, opt_state, grad, loss=None, model_state=None, key=None, **kwargs):
        updates, inner = self.tx.update(grad, opt_state.inner, opt_state.params, value=loss)
        return State(optax.apply_updates(opt_state.params, updates), inner)
'''


def installed(site: Path) -> None:
    """Lays the package into a directory of ``sys.path``."""
    for module, code in {"optimizers/base": BASE, "research/general_lopt/prefab": PREFAB}.items():
        file = site / "learned_optimization" / f"{module}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(code))
