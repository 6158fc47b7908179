"""``python -m presence_ds COMMAND``, ``deepspeed --module presence_ds COMMAND``: the same as ``presence COMMAND``."""

import sys

from presence_ds.cli import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments and arguments[0].startswith("--local_rank="):  # DeepSpeed's launcher puts it before all else
        arguments[:2] = reversed(arguments[:2])
    main(arguments)
