"""What is in the picture files: their facts, faults and copies, remembered from scan to scan."""
