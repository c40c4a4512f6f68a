"""The report of a finished run, written into its directory."""
