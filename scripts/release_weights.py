"""Put a trained network into the package: python scripts/release_weights.py CHECKPOINT --facts FILE [--config FILE] (see --help)."""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from kpose.errors import KposeError


def main() -> int:
    """Release a checkpoint."""
    parser = argparse.ArgumentParser(
        description="Write a trained network, small and with a complete card, into the folder of those that come with kpose."
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the .keras file of the training")
    parser.add_argument(
        "--facts",
        metavar="FILE",
        required=True,
        help="YAML with what its card must say: data, licence, intended_use, protocol, score, score_interval",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="also write TFLite, fp16 and int8; crops of this configuration's training people set int8's ranges"
    )
    options = parser.parse_args()
    from kpose.weights.release import release

    try:
        samples = None
        if options.config:
            from kpose.config import load_config
            from kpose.export import sample_crops

            samples = sample_crops(load_config(options.config))
        release(options.checkpoint, options.facts, samples)
    except KposeError as error:
        print(f"release_weights: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
