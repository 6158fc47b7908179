"""Optional behaviours of the trainer, one file each."""
