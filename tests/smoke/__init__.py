"""A quick look at an installed framecodec, for every platform that has a wheel."""
