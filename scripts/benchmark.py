"""Measure speed: python scripts/benchmark.py data --config FILE (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
