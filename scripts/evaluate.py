"""Score a checkpoint: python scripts/evaluate.py --config FILE --weights FILE (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
