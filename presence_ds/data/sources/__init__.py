"""Where text comes from: local files, the hub, installed packages, and noise made of them."""
