"""How the learning rate goes over training: one shape for every arm of a comparison."""

from typing import Literal

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

Schedule = Literal["constant", "cosine", "warmup_cosine", "wsd"]

WARMUP = 0.05  # of all steps
COOLDOWN = 0.2  # of all steps, the last ones


def learning_rate_schedule(name: Schedule, peak: ArrayLike, steps: int) -> optax.ScalarOrSchedule:
    r"""The learning rate of each step, from its peak, which may be traced.

    Of :math:`T` steps, the t-th has the peak times

    - ``constant``: 1, and the result is the peak itself;
    - ``cosine``: :math:`(1 + \cos(\pi t / T)) / 2`;
    - ``warmup_cosine``: a linear rise over the first 5%, then a cosine to 0;
    - ``wsd`` (warm-up, stable, decay): a linear rise over the first 5%, 1, and a linear fall to 0
      over the last 20%.

    >>> schedule = learning_rate_schedule("cosine", 0.1, 4)
    >>> [f"{schedule(step):.3f}" for step in range(4)]
    ['0.100', '0.085', '0.050', '0.015']

    References:
      Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2017 (cosine);
      Hu et al., MiniCPM: unveiling the potential of small language models, 2024 (wsd).
    """
    warmup = max(1, round(WARMUP * steps))
    rise = optax.linear_schedule(1 / warmup, 1.0, max(warmup - 1, 1))
    match name:
        case "constant":
            return peak
        case "cosine":
            shape = optax.cosine_decay_schedule(1.0, steps)
        case "warmup_cosine":
            rest = optax.cosine_decay_schedule(1.0, max(steps - warmup, 1))
            shape = optax.join_schedules([rise, rest], [warmup])
        case "wsd":
            cooldown = max(1, round(COOLDOWN * steps))
            fall = optax.linear_schedule(1.0, 0.0, cooldown)
            shape = optax.join_schedules(
                [rise, optax.constant_schedule(1.0), fall], [warmup, max(steps - cooldown, warmup)]
            )
    return lambda count: jnp.asarray(peak) * shape(count)


def judged_by(name: Schedule) -> Literal["final", "late"]:
    """What decides between trials: the last epoch where a decay calms it, else the last three.

    >>> judged_by("cosine"), judged_by("constant")
    ('final', 'late')
    """
    return "late" if name == "constant" else "final"
