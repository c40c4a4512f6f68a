"""Pretrained weights: what was published, how a file is brought here, and what stands in it."""
