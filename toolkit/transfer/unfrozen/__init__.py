"""Stages trained beyond the classifier, where that answers better pictures that it did not see."""
