"""``deepspeed --module presence_ds.train RECIPE.yaml [--section.field value ...]``: the same as ``presence train``."""

import sys

from presence_ds.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
