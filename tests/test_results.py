"""The page of results shows what the studies wrote, and nothing typed in by hand."""

import hashlib
import json
import re
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import optax
import pandas as pd
import pytest

import neuroplastic_optax as npx
from experiments import results

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "docs" / "results"
CLAIM = {
    "data": "MNIST",
    "source": "figure 2",
    "question": "Does it help?",
    "answer": "yes",
    "measured": "Δ +0.28 [+0.19, +0.41], p = 0.01, n = 20",
    "n": 20,
    "headline": True,
}
DELTA = re.compile(r"Δ ([+-]\d+\.\d\d)(?: \[([+-]\d+\.\d\d), ([+-]\d+\.\d\d)\])?")


def record(folder: Path, name: str, *claims: dict, selections: dict | None = None) -> None:
    """What a study leaves for the page."""
    (folder / name).mkdir()
    configuration = {"selections": selections} if selections else {}
    manifest = {"study": name.partition("-")[0], "configuration": configuration}
    (folder / name / "manifest.json").write_text(json.dumps(manifest))
    table = pd.DataFrame([{**CLAIM, **claim} for claim in claims], columns=[*CLAIM])
    table.to_csv(folder / name / "claims.csv", index=False)


def committed_deltas() -> set[tuple[str, ...]]:
    rows = pd.concat(pd.read_csv(path) for path in COMMITTED.glob("*/comparisons.csv"))
    return {
        tuple(f"{row[name]:+z.2f}" for name in ("mean", "interval_low", "interval_high"))
        for row in rows.to_dict("records")
    }


class TestCommittedPage:
    def test_is_made_from_what_the_committed_studies_wrote(self):
        assert (COMMITTED / results.PAGE).read_text("utf-8") == results.page(COMMITTED)

    @pytest.mark.parametrize(
        "page",
        [COMMITTED / results.PAGE, ROOT / "README.md", ROOT / "docs" / "should_i_use_it.md"],
    )
    def test_has_no_difference_that_is_not_a_row_of_some_comparisons(self, page: Path):
        found = DELTA.findall(page.read_text("utf-8"))
        assert len(found) >= 7
        assert set(found) <= committed_deltas()

    def test_says_in_short_what_the_project_s_readme_says(self):
        in_short = (COMMITTED / results.IN_SHORT).read_text("utf-8")
        assert in_short in (ROOT / "README.md").read_text("utf-8")
        assert in_short in (COMMITTED / results.PAGE).read_text("utf-8")

    def test_speaks_of_all_data_sets_with_a_fair_test_in_each_of_its_questions(self):
        of_test = {
            claim["question"]
            for claim in results.answers(results.find(COMMITTED))
            if claim["headline"] and claim["source"] not in ("the search", "the leaderboard")
        }
        text = "\n".join(results.headline(COMMITTED))
        assert text.count("- MNIST:") == text.count("- Fashion-MNIST:") == len(of_test) == 5

    def test_asks_each_question_of_a_data_set_once(self):
        asked = [(c["question"], c["data"]) for c in results.answers(results.find(COMMITTED))]
        assert len(set(asked)) == len(asked) > 10


class TestInShort:
    """What the sentences say in words; their numbers are held above."""

    @staticmethod
    def verdicts(studies: str, which: str) -> list[str]:
        """Of the comparisons that a query finds in all studies of a kind."""
        found = pd.concat(
            pd.read_csv(path) for path in COMMITTED.glob(f"{studies}/comparisons.csv")
        )
        return found.query(which)["verdict"].tolist()

    @pytest.mark.parametrize("arm", ["adam", "adamw"])
    def test_adam_and_adamw_are_better_on_four_of_five_tasks(self, arm: str):
        found = self.verdicts("leaderboard-*", f"family == 'hypotheses' and treatment == '{arm}'")
        assert sorted(found) == [*("better",) * 4, "not shown"]

    def test_momentum_is_better_on_two_tasks_and_worse_on_cifar10_and_text(self):
        momentum = "family == 'hypotheses' and treatment == 'momentum'"
        assert sorted(self.verdicts("leaderboard-*", momentum)) == [
            *("better", "better", "not shown", "worse", "worse")
        ]
        for task in ("CIFAR-10", "Python"):
            which = f"{momentum} and condition.str.startswith('{task}')"
            assert self.verdicts("leaderboard-*", which) == ["worse"]

    def test_muon_is_ahead_of_all_where_it_was_tried(self):
        found = pd.read_csv(COMMITTED / "leaderboard-fashion_mnist_small" / "comparisons.csv")
        of_arms = found[found["family"] == "hypotheses"].set_index("treatment")
        assert of_arms["mean"].idxmax() == "optax.contrib:muon"
        others = of_arms.drop("optax.contrib:muon")["interval_high"]
        assert of_arms.loc["optax.contrib:muon", "interval_low"] > others.max()
        assert not self.verdicts("leaderboard-small*", "treatment == 'optax.contrib:muon'")

    def test_the_same_chain_without_plasticity_is_nowhere_shown_to_be_worse(self):
        without = "treatment == 'sgd_homeostasis' and control == 'full' and family == 'hypotheses'"
        found = self.verdicts("leaderboard-*", without)
        assert len(found) == 5
        assert "worse" not in found
        against = "control == 'sgd_homeostasis' and treatment == 'full' and n == 20"
        assert set(self.verdicts("verdict-*", against)) == {"not shown"}

    def test_less_data_is_the_opposite(self):
        less = "condition == 'equal steps, difference at 10% minus that at 100%'"
        assert self.verdicts("low_data-*", less) == ["worse"]

    def test_wrong_labels_make_no_difference_of_practical_size(self):
        wrong = "control == 'sgd_homeostasis' and condition.str.startswith('40%')"
        assert self.verdicts("noise-*", wrong) == ["no difference of practical size"]

    @pytest.mark.parametrize(
        ("family", "verdict"), [("plastic_adam", "worse"), ("plastic_momentum", "better")]
    )
    def test_plasticity_is_worse_around_adamw_and_better_around_momentum(
        self, family: str, verdict: str
    ):
        which = "family == 'hypotheses' and question.str.contains('at equal trials')"
        which += f" and treatment == '{family}'"
        assert len(self.verdicts("families-*", which)) == 5
        for task in ("MNIST, autoencoder", "CIFAR-10", "Python"):
            on_task = f"{which} and condition.str.startswith('{task}')"
            assert self.verdicts("families-*", on_task) == [verdict]
        others = [v for v in self.verdicts("families-*", which) if v != verdict]
        assert set(others) <= {"no difference of practical size", "not shown"}
        assert len(others) == 2

    def test_plasticity_is_worse_around_muon_on_one_of_two_tasks(self):
        which = "family == 'hypotheses' and treatment == 'plastic_muon' and control == 'muon'"
        assert self.verdicts("families-*", which) == ["worse", "not shown"]

    def test_adamw_ends_above_momentum_with_plasticity_on_all_five(self):
        runs = pd.read_csv(
            COMMITTED / "families-fashion_mnist_small" / "runs.csv", low_memory=False
        )
        last = runs[(runs["split"] == "test") & (runs["epoch"] == runs["epochs"])]
        ends = last.groupby(["task", "arm"])[["test_accuracy", "test_error"]].mean()
        tasks = ends.index.unique("task")
        assert len(tasks) == 5
        for task in tasks:
            accuracy, error = ends.loc[task].loc["adamw"] - ends.loc[task].loc["plastic_momentum"]
            assert accuracy > 0 or error < 0

    def test_one_number_per_array_does_less_on_the_autoencoder_alone(self):
        elsewhere = "family == 'placebos on further tasks' and control.str.endswith('norm_matched')"
        found = {
            task: self.verdicts("families-*", f"{elsewhere} and condition.str.startswith('{task}')")
            for task in ("MNIST, autoencoder", "CIFAR-10", "Python")
        }
        assert found == {
            "MNIST, autoencoder": ["better"],
            "CIFAR-10": ["not shown"],
            "Python": ["no difference of practical size"],
        }

    def test_no_variant_of_the_design_space_is_shown_to_be_better(self):
        found = self.verdicts("design_space-*", "family == 'variants against their base'")
        assert found == ["not shown"] * 5


class TestPreset:
    """`sgd_with_plasticity` has the settings that the search selected, and says what they gave."""

    def test_has_the_settings_of_the_search(self):
        selections = pd.read_csv(COMMITTED / "families-fashion_mnist_small" / "selections.csv")
        first = selections[selections["task"] == "fashion_mnist_small"].set_index("arm")
        selected = first.loc["plastic_momentum"]
        left = 1 - selected["memory_share"]
        settings = {
            **selected[["strength", "max_ratio", "min_alpha", "max_alpha"]],
            "b2": selected["memory_decay"],
            "memory_weight": selected["memory_share"],
            "activity_weight": round(left * selected["activity_share"], 3),
            "gradient_weight": round(left * (1 - selected["activity_share"]), 3),
        }
        found = optax.chain(
            npx.with_plasticity(optax.trace(0.9), **settings), optax.scale_by_learning_rate(0.1)
        )
        preset = npx.sgd_with_plasticity(0.1, momentum=0.9)
        params = jnp.array([1.0, -2.0, 3.0])
        of_found, of_preset = found.init(params), preset.init(params)
        for gradient in (jnp.array([0.3, -0.1, 2.0]), jnp.array([-0.5, 0.2, 1.0])):
            theirs, of_found = found.update(gradient, of_found)
            ours, of_preset = preset.update(gradient, of_preset)
            assert ours.tolist() == theirs.tolist()

    def test_says_what_the_records_say(self):
        found = DELTA.findall(" ".join(str(npx.sgd_with_plasticity.__doc__).split()))
        assert len(found) == 3
        assert set(found) <= committed_deltas()

    def test_says_the_settings_that_it_has(self):
        selections = pd.read_csv(COMMITTED / "families-fashion_mnist_small" / "selections.csv")
        first = selections[selections["task"] == "fashion_mnist_small"].set_index("arm")
        weight, b2, *bounds = first.loc[
            "plastic_momentum", ["memory_share", "memory_decay", "min_alpha", "max_alpha"]
        ]
        said = f"its weight is {weight}, b2 is {b2}, and α is between {bounds[0]} and {bounds[1]}."
        assert said in " ".join(str(npx.sgd_with_plasticity.__doc__).split())


class TestOneAnswerPerQuestion:
    def test_is_the_one_with_the_most_seeds_and_cites_the_others(self, tmp_path: Path):
        record(tmp_path, "accuracy-mnist", {"n": 5, "answer": "not shown", "measured": "few"})
        record(tmp_path, "verdict-mnist", {"n": 20})
        (answer,) = results.answers(results.find(tmp_path))
        assert answer["answer"] == "yes"
        assert answer["measured"].endswith("asked with fewer seeds in accuracy-mnist (n = 5)")
        assert "not shown" not in results.page(tmp_path)

    def test_is_of_each_data_set(self, tmp_path: Path):
        record(tmp_path, "verdict-mnist", {})
        record(tmp_path, "verdict-cifar10", {"data": "CIFAR-10", "answer": "no"})
        assert results.headline(tmp_path) == [
            "- *Does it help?*",
            f"  - CIFAR-10: **no** ({CLAIM['measured']}).",
            f"  - MNIST: **yes** ({CLAIM['measured']}).",
        ]

    def test_shows_the_number_that_decides_and_the_table_all_of_them(self, tmp_path: Path):
        record(tmp_path, "verdict-mnist", {"measured": "Δ +1.00; against others: Δ +2.00"})
        assert results.headline(tmp_path)[1] == "  - MNIST: **yes** (Δ +1.00)."
        assert "| Δ +1.00<br>against others: Δ +2.00 |" in results.page(tmp_path)


class TestPage:
    @pytest.mark.parametrize("study", ["leaderboard", "families"])
    def test_begins_with_what_compares_most(self, study: str, tmp_path: Path):
        record(tmp_path, "verdict-mnist", {})
        record(tmp_path, f"{study}-mnist", {"question": "Which is best?", "headline": False})
        table = pd.DataFrame({"arm": ["Adam"], "MNIST": ["97.50 ± 0.10"]})
        table.to_csv(tmp_path / f"{study}-mnist" / "table.csv", index=False)
        page = results.page(tmp_path)
        assert "| arm | MNIST |\n|---|---|\n| Adam | 97.50 ± 0.10 |" in page
        places = [page.index(text) for text in (f"![{study}", "## The questions", "![verdict")]
        assert places == sorted(places)

    def test_without_studies_has_no_headline(self, tmp_path: Path):
        assert results.headline(tmp_path) == []

    def test_links_every_report(self, tmp_path: Path):
        record(tmp_path, "accuracy-mnist", {})
        record(tmp_path, "tune-mnist")
        page = results.page(tmp_path)
        assert "(accuracy-mnist/report.md)" in page
        assert "(tune-mnist/report.md)" in page

    def test_puts_every_claim_under_its_source_with_a_line_for_each_number(self, tmp_path: Path):
        claim = {"source": "abstract", "headline": False, "measured": "Δ +1.00; Δ +2.00"}
        record(tmp_path, "noise-mnist", claim)
        lines = results.page(tmp_path).splitlines()
        row = "| Does it help? | MNIST | yes | Δ +1.00<br>Δ +2.00 |"
        assert lines.index("### What its abstract says") < lines.index(row)

    def test_shows_the_papers_figures_first_each_with_ours(self, tmp_path: Path):
        record(tmp_path, "noise-mnist", {"source": "abstract", "question": "And with noise?"})
        record(tmp_path, "low_data-mnist", {"source": "figure 3", "question": "With less data?"})
        record(tmp_path, "verdict-mnist", {})  # asks figure 2's question with more seeds
        record(tmp_path, "accuracy-mnist", {"n": 5})
        page = results.page(tmp_path)
        places = [
            page.index(text)
            for text in (
                "![verdict-mnist](",
                "### Figure 2\n\n![accuracy-mnist](accuracy-mnist/figure.png)\n\n|",
                "### Figure 3\n\n![low_data-mnist](low_data-mnist/figure.png)\n\n|",
                "### What its abstract says\n\n|",
            )
        ]
        assert places == sorted(places)
        assert page.count("![verdict-mnist](") == 1


class TestChangedInput:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        record(tmp_path, "tune-mnist")
        content = b"arm,learning_rate\nfull,0.1\n"
        (tmp_path / "tune-mnist" / "selections.csv").write_bytes(content)
        noted = {"folder": "tune-mnist", "sha256": hashlib.sha256(content).hexdigest()}
        record(tmp_path, "verdict-mnist", {}, selections=noted)
        return tmp_path

    def test_is_refused_by_name(self, folder: Path):
        assert "**yes**" in results.page(folder)
        (folder / "tune-mnist" / "selections.csv").write_text("arm,learning_rate\nfull,0.3\n")
        page = results.page(folder)
        assert "**yes**" not in page
        assert "- verdict-mnist: it was made from an earlier selection" in page
        assert "verdict-mnist/report.md" not in page

    def test_is_refused_where_it_is_missing(self, folder: Path):
        (folder / "tune-mnist" / "selections.csv").unlink()
        assert "- verdict-mnist: tune-mnist is missing" in results.page(folder)


class TestShouldIUseIt:
    PAGE = (ROOT / "docs" / "should_i_use_it.md").read_text("utf-8")
    NAMES: ClassVar = {
        "`optax.adam`": "adam",
        "`neuroplastic`": "full",
        "`neuroplastic`, bfloat16 traces": "full_bfloat16",
        "`gradient_only`": "gradient_only",
        "`with_plasticity` around Adam": "with_plasticity",
    }

    @pytest.mark.parametrize("line", NAMES)
    def test_has_the_costs_that_were_counted_and_measured(self, line: str):
        compiled = pd.read_csv(COMMITTED / "benchmarks-accelerators" / "steps.csv")
        compiled = compiled[compiled["optimizer"] == self.NAMES[line]]
        of_leaf = compiled.query("target == 'h100' and tree == 'leaf'")
        steps = pd.read_csv(COMMITTED / "benchmarks-step" / "step.csv")
        steps = steps[steps["optimizer"] == self.NAMES[line]]
        measured = steps.query("tree == 'transformer' and donated").iloc[0]
        state = measured["state_bytes"] / measured["parameters"]
        expected = (
            f"| {line} | {of_leaf['bytes_per_parameter'].iloc[0]:.0f} | {state:.0f} "
            f"| {measured['ratio_to_adam']:.1f} |"
        )
        assert expected in self.PAGE.splitlines()
