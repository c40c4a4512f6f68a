"""Calls on bundles: make them, run them, look after their versions."""
