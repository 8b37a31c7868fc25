"""The book-keeping step: one forward, one backward, exact flat clipping [Bu et al. 2023, 2210.00038]."""
