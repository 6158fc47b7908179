"""``deepspeed --module presence_ds.score RECIPE.yaml OUTPUT ...``: the same as ``presence score``."""

import sys

from presence_ds.cli import main

if __name__ == "__main__":
    main(["score", *sys.argv[1:]])
