"""No study trains in these tests, and most draw no picture."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

from experiments import plotting, run, tasks
from tests.studies.made_up import Outcome, dataset


@pytest.fixture(scope="module", autouse=True)
def _made_up() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Program", Outcome)
        patch.setattr(run, "replicate", lambda arrays, _: arrays)
        patch.setattr(tasks, "_load_whole", lambda *_: dataset())
        yield
    assert plt.get_fignums() == []


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of other things: a picture takes longer than the rest of a study."""
    monkeypatch.setattr(plotting, "save", lambda figure, _: plt.close(figure))
