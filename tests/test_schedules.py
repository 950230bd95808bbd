"""Schedules: exact boundaries for any length of training, eager as well as compiled."""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuroplastic_optax.schedules import cosine_ramp, late_ramp, phase, plasticity_warmup

EARLY, LATE, RAMP = Fraction(3, 10), Fraction(7, 10), Fraction(3, 10)
PHASES = ("early", "middle", "late")
# Steps around every boundary; a fixed number of them, so that all examples share their programs.
PROBES = 64

TRAININGS = st.tuples(st.integers(1, 100_000), st.integers(1, 1000))


def progress(step, total_steps, steps_per_epoch):
    """Share of training done at the end of the current epoch, exactly."""
    epochs = step // steps_per_epoch + 1
    return min(Fraction(epochs * steps_per_epoch, total_steps), Fraction(1))


def probes(total_steps, steps_per_epoch):
    centres = [0, total_steps - 1]
    for share in (EARLY, LATE):
        step = int(share * total_steps)
        centres += [step, step // steps_per_epoch * steps_per_epoch]
    around = {c + d for c in centres for d in (-steps_per_epoch, -2, -1, 0, 1, steps_per_epoch)}
    inside = sorted(step for step in around if 0 <= step < total_steps)
    return np.resize(np.asarray(inside), PROBES)


def inside(name, p):
    return {"full": True, "early": p <= EARLY, "middle": EARLY < p < LATE, "late": p >= LATE}[name]


@given(TRAININGS)
@example((10, 1))
@example((1, 1))
@example((1, 1000))
@example((70, 7))
@example((100_000, 1))
@example((1_000_000, 1))
@example((50 * 391, 391))
def test_phases_have_exact_boundaries_and_partition_training(training):
    total_steps, steps_per_epoch = training
    steps = probes(*training)
    exact = [progress(int(step), *training) for step in steps]
    total = np.zeros(PROBES)
    for name in PHASES:
        schedule = phase(name, total_steps, steps_per_epoch=steps_per_epoch)
        values = np.asarray(schedule(steps))
        np.testing.assert_array_equal(values, [float(inside(name, p)) for p in exact], name)
        total += values
    np.testing.assert_array_equal(total, np.ones(PROBES))
    full = phase("full", total_steps, steps_per_epoch=steps_per_epoch)
    np.testing.assert_array_equal(full(steps), np.ones(PROBES))


@pytest.mark.parametrize(
    "training", [(10, 1), (50, 1), (90, 3), (610, 1), (2050, 41), (19_550, 391)]
)
@pytest.mark.parametrize("name", PHASES)
def test_phases_have_exact_boundaries_when_compiled(name, training):
    """XLA may replace a division by a product with the rounded reciprocal."""
    total_steps, steps_per_epoch = training
    steps = np.arange(total_steps)
    schedule = phase(name, total_steps, steps_per_epoch=steps_per_epoch, value=0.15)
    expected = [0.15 * inside(name, progress(int(step), *training)) for step in steps]
    np.testing.assert_array_equal(jax.jit(schedule)(steps), np.float32(expected))


@given(TRAININGS)
@example((10, 1))
@example((70, 7))
def test_late_ramp_is_zero_until_its_start_and_linear_then(training):
    total_steps, steps_per_epoch = training
    steps = probes(*training)
    values = np.asarray(late_ramp(total_steps, steps_per_epoch=steps_per_epoch, value=0.3)(steps))
    exact = [progress(int(step), *training) for step in steps]
    expected = [0.3 * max(p - RAMP, Fraction(0)) / (1 - RAMP) for p in exact]
    np.testing.assert_allclose(values, np.asarray(expected, float), rtol=1e-5, atol=1e-7)
    assert np.all(values[[p <= RAMP for p in exact]] == 0)
    np.testing.assert_allclose(values[[p == 1 for p in exact]], 0.3, rtol=1e-6)


@given(TRAININGS)
@example((10, 1))
def test_cosine_ramp_is_half_a_cosine(training):
    total_steps, steps_per_epoch = training
    steps = probes(*training)
    values = cosine_ramp(total_steps, steps_per_epoch=steps_per_epoch, value=0.3)(steps)
    exact = np.asarray([float(progress(int(step), *training)) for step in steps])
    np.testing.assert_allclose(values, 0.3 * 0.5 * (1 - np.cos(np.pi * exact)), atol=1e-6)


@given(st.integers(1, 1000), st.integers(0, 50), st.sampled_from([0.5, 1.0, 2.0]))
@example(10, 0, 2.0)
@example(10, 2, 2.0)
def test_warmup_is_a_stair_of_one_step_an_epoch(steps_per_epoch, warmup_epochs, final_scale):
    epochs = np.arange(warmup_epochs + 2)
    schedule = plasticity_warmup(steps_per_epoch, warmup_epochs, final_scale)
    share = [min(Fraction(int(e), warmup_epochs), 1) if warmup_epochs else 1 for e in epochs]
    expected = np.asarray([final_scale * float(s) for s in share])
    for edge in (0, steps_per_epoch - 1):  # first and last step of each epoch
        values = [float(schedule(int(e) * steps_per_epoch + edge)) for e in epochs[[0, -2, -1]]]
        np.testing.assert_allclose(values, expected[[0, -2, -1]], rtol=1e-6)
    assert float(schedule(10**9)) == final_scale


SCHEDULES = {
    "warmup": plasticity_warmup(5, 2, 2.0),
    "phase": phase("late", 20, steps_per_epoch=5),
    "late_ramp": late_ramp(20, steps_per_epoch=5),
    "cosine_ramp": cosine_ramp(20, steps_per_epoch=5),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_gives_float32_scalars_and_maps_over_steps(schedule):
    one_by_one = [schedule(step) for step in range(25)]
    assert {value.dtype for value in one_by_one} == {np.dtype("float32")}
    assert {value.shape for value in one_by_one} == {()}
    steps = jnp.arange(25)
    for many in (schedule(steps), jax.jit(schedule)(steps), jax.vmap(schedule)(steps)):
        np.testing.assert_allclose(many, one_by_one, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_moves_once_an_epoch_and_never_falls(schedule):
    values = np.asarray(schedule(jnp.arange(20))).reshape(4, 5)
    assert np.all(values == values[:, :1])
    assert np.all(np.diff(values[:, 0]) >= 0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_stays_at_its_end_after_training(schedule):
    assert schedule(10**6) == schedule(19)


COUNTS = [0, -1, 1.5, True, "10"]


@pytest.mark.parametrize("make", [functools.partial(phase, "early"), late_ramp, cosine_ramp])
@pytest.mark.parametrize("name", ["total_steps", "steps_per_epoch"])
@pytest.mark.parametrize("value", COUNTS)
def test_names_a_count_that_cannot_work(make, name, value):
    with pytest.raises(ValueError, match=name) as error:
        make(**{"total_steps": 10, "steps_per_epoch": 2} | {name: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps_per_epoch", 0),
        ("steps_per_epoch", 2.0),
        ("warmup_epochs", -1),
        ("warmup_epochs", False),
        ("final_scale", float("nan")),
    ],
)
def test_warmup_names_a_setting_that_cannot_work(name, value):
    settings = {"steps_per_epoch": 10, "warmup_epochs": 2, "final_scale": 1.0}
    with pytest.raises(ValueError, match=name) as error:
        plasticity_warmup(**settings | {name: value})
    assert repr(value) in str(error.value)


def test_names_an_unknown_phase():
    with pytest.raises(ValueError, match="full, early, middle, late, got 'beginning'"):
        phase("beginning", 10)
