"""Which sample comes when: the mixture of sources and a seeded order over any ranks and workers."""
