"""What the command line can do, one file per command; `presence_ds.cli.COMMANDS` lists them."""
