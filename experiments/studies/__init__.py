"""The studies, by the names that the command line and the records call them."""

from experiments.studies.accuracy import Accuracy
from experiments.studies.base import Study
from experiments.studies.design_space import DesignSpace
from experiments.studies.dynamics import Dynamics
from experiments.studies.families import Families
from experiments.studies.leaderboard import Leaderboard
from experiments.studies.low_data import LowData
from experiments.studies.noise import Noise
from experiments.studies.optimizers import Optimizers
from experiments.studies.selection import Selection
from experiments.studies.transfer import Transfer
from experiments.studies.tune import Tune
from experiments.studies.verdict import FairTest

STUDIES: dict[str, type[Study]] = {
    study.name: study
    for study in (
        Accuracy,
        LowData,
        Dynamics,
        Noise,
        Tune,
        FairTest,
        Selection,
        Optimizers,
        Transfer,
        DesignSpace,
        Leaderboard,
        Families,
    )
}
