"""The target of OSS-Fuzz: programs of calls on both engines and the reference (see guided.py)."""

import sys

from tests.fuzz import guided

if __name__ == "__main__":
    guided.fuzz(sys.argv)
