"""Synthetic people: articulated figures in the COCO layout, for a run without any download."""

from kpose.data.synthetic.dataset import SyntheticDataset, write_synthetic_people

__all__ = ["SyntheticDataset", "write_synthetic_people"]
