"""python -m study.train RECIPE: `presence train` that also knows the optimizers of `study.optimizers`."""

import sys

from presence_ds.cli import main
from study.optimizers import register

if __name__ == "__main__":
    register()
    main(["train", *sys.argv[1:]])
