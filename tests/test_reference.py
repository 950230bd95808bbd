"""The published implementation's trajectories, as this project compares with them."""

import pytest

from experiments import reference


@pytest.mark.parametrize(
    ("dataset", "full", "ablation"), [("mnist", 97.64, 97.44), ("fashion_mnist", 87.84, 87.48)]
)
def test_final_accuracies_are_the_known_ones(dataset, full, ablation):
    runs = reference.load(dataset)
    final = 100 * runs[runs["epoch"] == 10].groupby("arm")["test_accuracy"].mean()
    assert final["full"] == pytest.approx(full, abs=0.005)
    assert final["gradient_only"] == pytest.approx(ablation, abs=0.005)


def test_every_run_has_ten_epochs_counted_from_one():
    epochs = reference.load("mnist").groupby(["arm", "seed"])["epoch"].apply(list)
    assert all(run == list(range(1, 11)) for run in epochs)


def test_another_data_set_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"mnist, fashion_mnist, got 'cifar10'"):
        reference.load("cifar10")


def test_the_authors_own_numbers_are_those_of_their_file():
    (theirs, nothing) = (reference.reported(name) for name in ("mnist", "fashion_mnist"))
    assert theirs["seeds"] == 3
    assert (theirs["full_final_percent"], theirs["gap_points"]) == (97.457, 0.1)
    assert nothing is None
