"""Parts that the reports share: scores by class, plots, and the look of a page."""
