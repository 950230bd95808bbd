"""No study trains in these tests, and most draw no picture."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

from experiments import plotting, run, tasks
from tests.studies.made_up import Outcome, dataset


def same_time(problem: object, examples: object, optimizers: dict, **_: object) -> dict[str, float]:
    """A step of every arm takes a millisecond."""
    del problem, examples
    return dict.fromkeys(optimizers, 0.001)


@pytest.fixture(scope="module", autouse=True)
def _made_up() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Program", Outcome)
        patch.setattr(run, "step_seconds", same_time)
        patch.setattr(run, "replicate", lambda arrays, _: arrays)
        patch.setattr(tasks, "_load_whole", lambda *_: dataset())
        yield
    assert plt.get_fignums() == []


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of other things: a picture takes longer than the rest of a study."""
    monkeypatch.setattr(plotting, "save", lambda figure, _: plt.close(figure))
