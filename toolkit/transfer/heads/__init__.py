"""The classifier on cached features: fitted, judged out of fold, and chosen among several."""
