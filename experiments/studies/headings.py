"""What every figure of a study says above it."""

from collections.abc import Sequence

from experiments.comparisons import Row, could_show
from experiments.studies.base import Study


def heading(study: Study, shown: str, drawn: str, rows: Sequence[Row] = ()) -> str:
    """The title of a figure, so that it can be read alone.

    Args:
      study: whose task and scale it names.
      shown: what the figure is about.
      drawn: what points, lines and bands are of, with the number of seeds.
      rows: the comparisons that it shows; named are the smallest differences they could have shown.
    """
    could = could_show(rows)
    return f"{study.title}{study.scale()}: {shown}\n{drawn}{'; ' if could else ''}{could}"
