"""``python -m tests.soak [--seconds N] [--seed N]``: runs until the time is up, prints what was."""

from __future__ import annotations

import argparse
import sys

from tests.soak.run import soak

parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
parser.add_argument("--seconds", type=float, default=60.0)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
found = soak(arguments.seconds, arguments.seed)
print(found)
sys.exit(bool(found.lost or found.descriptors or found.failures))
