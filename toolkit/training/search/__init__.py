"""Search for settings with Optuna: scales, a study that survives a kill, and a process per trial."""
