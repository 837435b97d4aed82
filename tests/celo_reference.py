"""Celo and Celo-Adam written out in NumPy, one tensor at a time, to compare with.

Float32 like the optimizers, straight from the published formulas, without tiles or shared code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

F = np.float32
Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]
DECAYS = np.array([0.9, 0.99, 0.999], F)
TAUS = np.array([0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1], F)


def _rs(x: Array) -> Array:
    return (1 / np.sqrt(x)).astype(F)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class LossFeatures:
    """Running means of the loss over time constants from 10 to N updates."""

    def __init__(self, num_steps: int) -> None:
        lengths = 10.0 ** np.linspace(F(1), np.log10(F(num_steps)), 10, dtype=F)
        self.decay = np.exp(-1 / lengths.astype(F)).astype(F)
        self.mean, self.least, self.seen = np.zeros(10, F), np.full(10, 999999999999.0, F), 0

    def __call__(self, loss: float) -> Array:
        j = F(self.seen + 1)
        top = F(loss) if self.seen == 0 else (self.mean / (1 - self.decay**j)).max()
        loss = min(2 * abs(top), F(loss))
        self.mean = self.decay * self.mean + (1 - self.decay) * F(loss)
        self.seen += 1
        corrected = self.mean / (1 - self.decay**j)
        self.least = np.minimum(self.least, corrected)
        low = self.least[:-1]
        f = (corrected[:-1] - low) / np.maximum(F(1e-8), corrected[1:] - low) - 1
        return np.clip(f, -1, 1) * (0 if self.seen <= 2 else 1)


class Schedule:
    """The LSTM, which gives ``0.1 * exp(...)``."""

    def __init__(self, theta: dict[str, Any], num_steps: int) -> None:
        self.theta, self.num_steps, self.t = theta, num_steps, 0
        self.features = LossFeatures(num_steps)
        self.h = theta["lstm_init_state"]["hidden"]
        self.c = theta["lstm_init_state"]["cell"]

    def _linear(self, name: str, x: Array) -> Array:
        layer = self.theta["rnn_params"][name]
        return x @ layer["w"] + layer["b"]

    def __call__(self, loss: float) -> Array:
        progress = np.tanh(10 * (F(self.t) / F(self.num_steps) - TAUS))
        x = np.concatenate([progress, self.features(loss)]).astype(F)[None]
        u = self._linear("linear_2", x) + np.maximum(self._linear("linear_1", x), 0)
        gates = self._linear("rnn/linear", np.concatenate([u, self.h], 1))
        i, g, f, o = np.split(gates, 4, axis=1)
        self.c = _sigmoid(f + 1) * self.c + _sigmoid(i) * np.tanh(g)
        self.h = _sigmoid(o) * np.tanh(self.c)
        self.t += 1
        return F(0.1) * np.exp(self._linear("step_size", self.h)[0, 0])


class Celo:
    """Celo; ``update`` returns the new parameters."""

    def __init__(self, theta: dict[str, Any], num_steps: int, params: Tensors) -> None:
        self.schedule = Schedule(theta, num_steps)
        bank = theta["ff_mod_stack"]["~"]
        self.w0 = np.concatenate([bank[f"w0__{j}"][0] for j in range(14)])
        self.rest = [bank[name][0] for name in ("b0", "w1", "b1", "w2", "b2")]
        self.state: dict[str, dict[str, Array]] = {n: self._start(p) for n, p in params.items()}

    def _start(self, p: Array) -> dict[str, Array]:
        shape = p.shape or (1,)
        state = {"m": np.zeros((3, *shape), F), "v": np.zeros(shape, F)}
        if len(shape) < 2:
            return state | {"D": np.zeros((3, *shape), F)}
        d1, d0 = np.argsort(shape, kind="stable")[-2:]
        row, column = np.delete(shape, d0), np.delete(shape, d1)
        return state | {"R": np.zeros((3, *row), F), "C": np.zeros((3, *column), F)}

    def update(self, params: Tensors, grads: Tensors, loss: float) -> Tensors:
        rate = self.schedule(loss)
        return {n: self._step(params[n], grads[n], self.state[n], rate) for n in params}

    def _step(self, p: Array, g: Array, s: dict[str, Array], rate: Array) -> Array:
        shape = p.shape
        p, g = p.reshape(shape or (1,)), np.clip(g.reshape(shape or (1,)), -1000, 1000)
        b = DECAYS.reshape(3, *[1] * p.ndim)
        s["m"] = b * s["m"] + (1 - b) * g
        s["v"] = F(0.999) * s["v"] + (1 - F(0.999)) * g * g
        z = np.stack([*self._inputs(p, g, s, b)], axis=-1).astype(F)
        axes = tuple(range(p.ndim))
        z = z * _rs(F(1e-5) + np.mean(z * z, axis=axes, dtype=np.float64).astype(F))
        b0, w1, b1, w2, b2 = self.rest
        y = np.maximum(z @ self.w0 + b0, 0)
        o = np.maximum(y @ w1 + b1, 0) @ w2 + b2
        scale = np.sqrt(np.mean(p * p, dtype=np.float64).astype(F) + F(1e-9))
        step = rate * (o[..., 0] * (scale * np.exp(F(0.001) * o[..., 1])) * F(0.001))
        return (p - step).astype(F).reshape(shape)

    @staticmethod
    def _inputs(p: Array, g: Array, s: dict[str, Array], b: Array) -> Any:
        """The thirty inputs, in order."""
        m, v = s["m"], s["v"]
        root, square = _rs(v + F(1e-6)), g * g + F(1e-30)
        if p.ndim < 2:
            s["D"] = b * s["D"] + (1 - b) * square
            row = column = s["D"]
            by_grad, by_m = _rs(np.maximum(s["D"] + F(1e-9), F(1e-9))), _rs(s["D"])
        else:
            d1, d0 = (int(d) for d in np.argsort(p.shape, kind="stable")[-2:])
            c = DECAYS.reshape(3, *[1] * (p.ndim - 1))
            s["R"] = c * s["R"] + (1 - c) * square.mean(d0)
            s["C"] = c * s["C"] + (1 - c) * square.mean(d1)
            inner = 1 + (d1 - 1 if d1 > d0 else d1)
            mean = s["R"].mean(inner, keepdims=True) + F(1e-9)
            a = np.expand_dims(_rs(np.maximum(s["R"] / mean, F(1e-9))), 1 + d0)
            by_grad = by_m = a * np.expand_dims(_rs(np.maximum(s["C"], F(1e-9))), 1 + d1)
            row = np.broadcast_to(np.expand_dims(s["R"], 1 + d0), m.shape)
            column = np.broadcast_to(np.expand_dims(s["C"], 1 + d1), m.shape)
        yield from (g, np.clip(g, F(-0.1), F(0.1)), p, *m, v, *(m * root), root)
        yield from (*(g * by_grad), g * root, *row, *column)
        yield from (*_rs(row + F(1e-8)), *_rs(column + F(1e-8)), *(m * by_m))


class CeloAdam:
    """Celo-Adam; ``update`` returns the new parameters."""

    def __init__(self, theta: dict[str, Any], num_steps: int, params: Tensors) -> None:
        self.schedule = Schedule(theta, num_steps)
        self.m = {n: np.zeros_like(p) for n, p in params.items()}
        self.v = {n: np.zeros_like(p) for n, p in params.items()}

    def update(self, params: Tensors, grads: Tensors, loss: float) -> Tensors:
        rate = self.schedule(loss) * F(0.001)
        new = {}
        for n, p in params.items():
            g = np.clip(grads[n], -1000, 1000)
            self.m[n] = F(0.9) * self.m[n] + (1 - F(0.9)) * g
            self.v[n] = F(0.999) * self.v[n] + (1 - F(0.999)) * g * g
            m = self.m[n] / (1 - F(0.9) ** F(self.schedule.t))
            v = self.v[n] / (1 - F(0.999) ** F(self.schedule.t))
            new[n] = (p - m * (rate / (F(1e-8) + np.sqrt(v + F(1e-10))))).astype(F)
        return new
