"""``python -m presence_ds COMMAND``, ``deepspeed --module presence_ds COMMAND``: the same as ``presence COMMAND``."""

from presence_ds.cli import main

if __name__ == "__main__":
    main()
