"""python -m study.presence COMMAND ...: `presence COMMAND` that also knows the optimizers of `study.optimizers`."""

import sys

from presence_ds.cli import main
from study.optimizers import register

if __name__ == "__main__":
    register()
    main(sys.argv[1:])
