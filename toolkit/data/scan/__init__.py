"""Scans of picture files: their facts, faults and copies, kept from scan to scan."""
