"""``python -m presence_ds COMMAND ...``, where ``presence`` is not on the path."""

from presence_ds.cli import main

main()
