"""Writes the golden list of layer names, after a change of names that is meant: python tests/models/write_layer_names.py."""

from __future__ import annotations

import gzip
import json

from kpose.models import list_models
from tests.models.test_models import LAYER_NAMES, network

if __name__ == "__main__":
    names = {name: [layer.name for layer in network(name).layers if layer.weights] for name in list_models()}
    # Without a time stamp, so that the same names make the same file.
    LAYER_NAMES.write_bytes(gzip.compress(json.dumps(names).encode(), mtime=0))
    print(f"{sum(map(len, names.values()))} names of {len(names)} networks: {LAYER_NAMES}")
