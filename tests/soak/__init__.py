"""Many connections at once, cut and disturbed at random, every byte accounted for."""
