"""Write what every runner must make of a few photos: python scripts/make_golden_vectors.py [--weights NAME_OR_FILE] (see --help)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from kpose.errors import KposeError
from kpose.weights.pretrained import DEFAULT

GOLDEN = Path(__file__).resolve().parents[1] / "tflite" / "golden"


def main() -> int:
    """Make the golden vectors."""
    parser = argparse.ArgumentParser(description="Write the golden vectors of tflite/golden anew, from the photos there.")
    parser.add_argument(
        "--weights",
        metavar="NAME_OR_FILE",
        default=DEFAULT,
        help=f"the network of their heatmaps, by name or .keras file (default: {DEFAULT})",
    )
    parser.add_argument("--folder", metavar="FOLDER", default=GOLDEN, help="holds the photos (default: tflite/golden)")
    options = parser.parse_args()
    from kpose.export.golden import make_golden_vectors

    try:
        print(f"wrote {make_golden_vectors(options.weights, options.folder)}")
    except KposeError as error:
        print(f"make_golden_vectors: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
