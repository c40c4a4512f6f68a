"""The report of a finished run: scores by class, plots, and one HTML page."""
