"""Run by ``test_mesh.py`` as one process of a job: the same study twice, shared out differently."""

import sys

from experiments.__main__ import main

if __name__ == "__main__":
    _, *study = sys.argv
    for options in (
        "--mesh data=4 --fsdp --out data --distributed",
        "--mesh seed=2 data=2 --out seed",  # the processes are one job already
    ):
        sys.argv = ["experiments", *study, *options.split()]
        main()
