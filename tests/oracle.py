"""The method written once more, from the equations of docs/method.md: NumPy, float64, plain loops.

Trees are dicts of arrays. Every part is an object with ``update(updates, params) -> updates`` that
keeps its own traces; ``chain`` runs them one after the other. Nothing of the library is used.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

Tree = dict[str, np.ndarray]
Schedule = Callable[[int], float]


def mean(x):
    return float(np.sum(x)) / x.size if x.size else 0.0


def norm(x):
    return float(np.sqrt(np.sum(x * x)))


def limit(x, length, eps):
    size = norm(x)
    return x * (length / (size + eps)) if size > length else x


def value_at(value: float | Schedule, step: int) -> float:
    return value(step) if callable(value) else value


@dataclasses.dataclass
class Plasticity:
    """Traces and coefficients; ``observe`` takes a step's gradients and gives α and α_grad."""

    activity_weight: float = 0.4
    gradient_weight: float = 0.4
    memory_weight: float = 0.2
    activity_decay: float = 0.95
    b1: float = 0.9
    b2: float = 0.99
    min_alpha: float = 0.2
    max_alpha: float = 2.0
    plasticity_scale: float | Schedule = 1.0
    eps: float = 1e-8
    tensorwise: bool = False

    def __post_init__(self):
        self.steps = 0
        self.activity, self.mu, self.nu = {}, {}, {}

    def observe(self, gradients: Tree) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        scale = value_at(self.plasticity_scale, self.steps)
        self.steps += 1
        alphas = {}
        for leaf, g in gradients.items():
            zero = np.zeros_like(g)
            a = self.activity_decay * self.activity.get(leaf, zero)
            m = self.b1 * self.mu.get(leaf, zero)
            v = self.b2 * self.nu.get(leaf, zero)
            self.activity[leaf] = a + (1 - self.activity_decay) * np.abs(g)
            self.mu[leaf] = m + (1 - self.b1) * g
            self.nu[leaf] = v + (1 - self.b2) * g**2
            alphas[leaf] = self.coefficient(leaf, g, scale)
        return alphas

    def coefficient(self, leaf, g, scale):
        def normalised(x):
            return x / (mean(x) + self.eps)

        ghat = normalised(np.abs(g))
        ahat = normalised(self.activity[leaf])
        mhat = normalised(np.abs(self.mu[leaf]) / (np.sqrt(self.nu[leaf]) + self.eps))
        mixed = (
            self.activity_weight * ahat + self.gradient_weight * ghat + self.memory_weight * mhat
        )
        if self.tensorwise:
            ghat, mixed = np.full_like(g, mean(ghat)), np.full_like(g, mean(mixed))
        alpha_grad = np.clip(ghat, self.min_alpha, self.max_alpha)
        alpha_full = np.clip(mixed, self.min_alpha, self.max_alpha)
        return alpha_grad + scale * (alpha_full - alpha_grad), alpha_grad


@dataclasses.dataclass
class Scaled:
    """u = α ⊙ g."""

    plasticity: Plasticity

    def update(self, gradients, params):
        del params
        alphas = self.plasticity.observe(gradients)
        return {leaf: alphas[leaf][0] * g for leaf, g in gradients.items()}


@dataclasses.dataclass
class Bounded:
    """u = g + limit((α − 1) g, ρ‖g‖)."""

    plasticity: Plasticity
    max_ratio: float = 0.5

    def update(self, gradients, params):
        del params
        alphas = self.plasticity.observe(gradients)
        return {
            leaf: g
            + limit((alphas[leaf][0] - 1) * g, self.max_ratio * norm(g), self.plasticity.eps)
            for leaf, g in gradients.items()
        }


@dataclasses.dataclass
class Orthogonal:
    """u = g + the part of (α − α_grad) g that is orthogonal to g."""

    plasticity: Plasticity
    strength: float | Schedule = 0.1
    max_ratio: float = 0.5
    match_norm: bool = False

    def update(self, gradients, params):
        del params
        strength = value_at(self.strength, self.plasticity.steps)
        alphas = self.plasticity.observe(gradients)
        eps = self.plasticity.eps
        result = {}
        for leaf, g in gradients.items():
            alpha, alpha_grad = alphas[leaf]
            s = (alpha - alpha_grad) * g
            o = s - np.sum(s * g) / (norm(g) ** 2 + eps) * g
            if self.match_norm and norm(o) > eps:
                o = o * (norm(g) / (norm(o) + eps))
            delta = limit(strength * o, self.max_ratio * norm(g), eps)
            result[leaf] = g + delta if norm(g) ** 2 > eps else g
        return result


@dataclasses.dataclass
class Adam:
    """Bias-corrected m / (√v + eps)."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        self.steps = 0
        self.m, self.v = {}, {}

    def update(self, gradients, params):
        del params
        self.steps += 1
        result = {}
        for leaf, g in gradients.items():
            self.m[leaf] = self.b1 * self.m.get(leaf, 0.0) + (1 - self.b1) * g
            self.v[leaf] = self.b2 * self.v.get(leaf, 0.0) + (1 - self.b2) * g**2
            m = self.m[leaf] / (1 - self.b1**self.steps)
            v = self.v[leaf] / (1 - self.b2**self.steps)
            result[leaf] = m / (np.sqrt(v) + self.eps)
        return result


@dataclasses.dataclass
class Momentum:
    """t ← decay t + g."""

    decay: float = 0.9

    def __post_init__(self):
        self.trace = {}

    def update(self, gradients, params):
        del params
        for leaf, g in gradients.items():
            self.trace[leaf] = self.decay * self.trace.get(leaf, 0.0) + g
        return dict(self.trace)


@dataclasses.dataclass
class Decay:
    """u ← u + λ p: coupled before homeostasis or a base, decoupled after homeostasis."""

    weight_decay: float

    def update(self, updates, params):
        return {leaf: u + self.weight_decay * params[leaf] for leaf, u in updates.items()}


@dataclasses.dataclass
class Modulated:
    """u = b + limit(δ, ρ‖b‖) on the leaves in scope, with α from the raw gradient."""

    base: object
    plasticity: Plasticity
    strength: float | Schedule = 0.15
    max_ratio: float = 0.25
    target: str = "update"
    leaves: frozenset[str] | None = None

    def update(self, gradients, params):
        strength = value_at(self.strength, self.plasticity.steps)
        base_updates = self.base.update(gradients, params)
        in_scope = set(gradients) if self.leaves is None else self.leaves
        alphas = self.plasticity.observe({leaf: gradients[leaf] for leaf in in_scope})
        result = dict(base_updates)
        for leaf in in_scope:
            b = base_updates[leaf]
            if self.target == "update":
                direction = b
            elif self.target == "momentum":
                correction = 1 - self.plasticity.b1**self.plasticity.steps
                direction = self.plasticity.mu[leaf] / correction
            else:
                trust = np.clip(norm(params[leaf]) / (norm(b) + 1e-12), 0.5, 1.5)
                direction = (trust - 1) * b
            delta = strength * (alphas[leaf][0] - 1) * direction
            result[leaf] = b + limit(delta, self.max_ratio * norm(b), self.plasticity.eps)
        return result


@dataclasses.dataclass
class Controlled:
    """Multiplies the output of another part by a factor, one for each group of leaves."""

    inner: object
    plasticity: Plasticity
    strength: float | Schedule = 0.1
    low: float = 0.8
    high: float = 1.2
    groups: dict[str, str] | None = None

    def update(self, gradients, params):
        strength = value_at(self.strength, self.plasticity.steps)
        updates = self.inner.update(gradients, params)
        alphas = self.plasticity.observe(gradients)
        eps = self.plasticity.eps
        labels = self.groups or dict.fromkeys(gradients, "all")
        ratios = {label: [] for label in labels.values()}
        for leaf, (alpha, alpha_grad) in alphas.items():
            if alpha.size:
                x = mean(np.log(np.maximum(alpha, eps) / np.maximum(alpha_grad, eps)))
                ratios[labels[leaf]].append(x if np.isfinite(x) else 0.0)
        self.multipliers = {
            label: float(np.clip(1 + strength * np.mean(x or [0.0]), self.low, self.high))
            for label, x in ratios.items()
        }
        return {leaf: self.multipliers[labels[leaf]] * u for leaf, u in updates.items()}


@dataclasses.dataclass
class Homeostasis:
    """S: the norm bound, then the gain towards a target root mean square."""

    max_update_norm: float = 1.0
    target_rms: float = 0.02
    adaptation_rate: float = 0.01
    eps: float = 1e-8

    def update(self, updates, params):
        del params
        result = {}
        for leaf, update in updates.items():
            u = limit(update, self.max_update_norm, self.eps)
            rms = np.sqrt(mean(u * u) + self.eps)
            gain = np.clip(1 + self.adaptation_rate * (self.target_rms - rms), 0.5, 1.5)
            result[leaf] = gain * u
        return result


class Chain:
    """Runs parts one after the other."""

    def __init__(self, *parts):
        self.parts = parts

    def update(self, updates, params):
        for part in self.parts:
            updates = part.update(updates, params)
        return updates


def descend(optimizer, params: Tree, gradients: list[Tree], learning_rate: float) -> list[Tree]:
    """Parameters after each step of θ ← θ − η u."""
    trajectory = []
    for g in gradients:
        updates = optimizer.update(g, params)
        params = {leaf: p - learning_rate * updates[leaf] for leaf, p in params.items()}
        trajectory.append(params)
    return trajectory
