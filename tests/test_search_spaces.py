"""The quasi-random search: what is tried, what is chosen, and how sure that is."""

import numpy as np
import pytest

from experiments.cells import ConfigError
from experiments.spaces import Space, Trial, design, parse, spaces_of
from experiments.trials import budget_curve, choose, edge, extension, probability_of_best
from experiments.tuning import search

SPACES = {"learning_rate": Space(1e-3, 1.0), "b1": Space(0.8, 0.99, "linear")}


class TestDesign:
    def test_is_the_same_each_time_and_grows_without_changing(self):
        assert design(SPACES, 8) == design(SPACES, 8) == design(SPACES, 16)[:8]

    def test_covers_each_setting_s_range(self):
        trials = design(SPACES, 64)
        rates = np.log10([trial.learning_rate for trial in trials])
        decays = [dict(trial.settings)["b1"] for trial in trials]
        for values, low, high in ((rates, -3, 0), (decays, 0.8, 0.99)):
            counts, _ = np.histogram(values, bins=8, range=(low, high))
            assert counts.sum() == 64
            assert counts.min() >= 5

    def test_is_no_grid_no_two_trials_share_a_value(self):
        rates = [trial.learning_rate for trial in design(SPACES, 16)]
        assert len(set(rates)) == 16


class TestSpaces:
    def test_are_around_an_arm_s_own_learning_rate(self):
        space = spaces_of("adam", {})["learning_rate"]
        assert (space.low, space.high) == pytest.approx((1e-4, 1e-2))

    def test_hold_weight_decay_where_the_arm_has_it(self):
        with_decay = ("adamw", "adamw_homeostasis", "optax:lion", "optax.contrib:muon")
        assert all("weight_decay" in spaces_of(arm, {}) for arm in with_decay)
        assert all("weight_decay" not in spaces_of(arm, {}) for arm in ("sgd", "adam", "full"))

    def test_that_are_asked_for_go_to_the_arms_that_have_the_setting(self):
        asked = parse(["learning_rate=log(1e-4, 1)", "b1=linear(.8, .99)"])
        assert spaces_of("adam", asked) == {
            "learning_rate": Space(1e-4, 1.0),
            "b1": Space(0.8, 0.99, "linear"),
        }
        assert list(spaces_of("sgd", asked)) == ["learning_rate"]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("learning_rate", "takes name=log"),
            ("learning_rate=log(1, 0.1)", "low below high"),
            ("learning_rate=log(0, 1)", "above 0"),
            ("b1=linear(a, b)", "takes name=log"),
        ],
    )
    def test_that_make_no_sense_are_refused(self, text: str, said: str):
        with pytest.raises(ConfigError, match=said):
            parse([text])

    def test_given_twice_are_refused(self):
        with pytest.raises(ConfigError, match="gives b1 twice"):
            parse(["b1=linear(0, 1)", "b1=linear(0, 1)"])


def trials(*rates: float) -> list[Trial]:
    return [Trial(rate) for rate in rates]


class TestChoice:
    def test_is_by_the_mean_over_the_seeds(self):
        found = choose(trials(0.1, 0.2, 0.3), np.array([[9.0, 1, 1], [4, 4, 4], [3, 3, 3]]))
        assert (found.best, found.runner_up) == (Trial(0.2), Trial(0.1))
        assert found.score == 4
        assert found.trials == 3

    def test_never_is_a_trial_that_diverged(self):
        scores = np.array([[np.nan, 99.0], [1, 1]])
        assert choose(trials(0.1, 0.2), scores).best == Trial(0.2)

    def test_says_where_the_best_is_the_lowest_or_the_highest_that_was_tried(self):
        scores = np.array([[1.0], [2.0], [3.0]])
        assert choose(trials(0.1, 0.2, 0.3), scores).edges == ("learning_rate",)
        assert choose(trials(0.1, 0.3, 0.2), scores).edges == ()

    def test_is_sure_where_every_seed_says_the_same(self):
        assert probability_of_best(np.array([[3.0, 3, 3], [1, 2, 1]])) == 1

    def test_is_a_coin_flip_between_equals(self):
        assert probability_of_best(np.array([[1.0, 1, 1], [1, 1, 1]])) == 0.5

    def test_is_less_sure_where_one_seed_decides(self):
        scores = np.array([[5.0, 1, 1], [2, 2, 2]])
        # Without the first seed the other trial is the better one: 8 of 27 resamples.
        assert probability_of_best(scores) == pytest.approx(1 - 8 / 27)


class TestBudget:
    def test_of_one_is_the_mean_and_of_many_nears_the_best(self):
        curve = budget_curve(np.array([3.0, 1.0, 2.0]))
        assert curve[0] == 2
        assert (np.diff(curve) > 0).all()
        assert curve[-1] < 3

    def test_is_the_mean_over_all_draws(self):
        values = np.array([1.0, 4.0, 9.0])
        pairs = [max(a, b) for a in values for b in values]
        assert budget_curve(values)[1] == pytest.approx(np.mean(pairs))


class TestExtension:
    def test_goes_on_beyond_the_edge(self):
        tried = trials(0.01, 0.1, 1.0)
        beyond = extension({"learning_rate": Space(0.01, 1.0)}, tried, Trial(1.0))
        assert beyond == {"learning_rate": Space(1.0, 10.0)}
        assert extension({"learning_rate": Space(0.01, 1.0)}, tried, Trial(0.1)) is None

    def test_leaves_a_linear_range_as_it_is(self):
        tried = [
            Trial(0.1, (("b1", 0.8),)),
            Trial(0.01, (("b1", 0.9),)),
            Trial(1.0, (("b1", 0.85),)),
        ]
        spaces = {"learning_rate": Space(0.01, 1.0), "b1": Space(0.8, 0.99, "linear")}
        assert extension(spaces, tried, tried[0]) is None
        assert edge(tried, tried[0], "b1") == "low"

    def test_is_counted_and_ends(self):
        """The best rate is far above the space: three extensions of two trials each."""
        judged = []

        def judge(tried):
            judged.append({key: len(of_key) for key, of_key in tried.items()})
            return {
                key: {trial: np.array([np.log(trial.learning_rate)]) for trial in of_key}
                for key, of_key in tried.items()
            }

        tried, _ = search(judge, {("mnist5k", "adam"): spaces_of("adam", {})}, budget=4)
        assert [of["mnist5k", "adam"] for of in judged] == [4, 6, 8, 10]
        rates = [trial.learning_rate for trial in tried["mnist5k", "adam"]]
        assert max(rates[:4]) <= 1e-2 < min(rates[4:])
