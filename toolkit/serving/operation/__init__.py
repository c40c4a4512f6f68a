"""What whoever operates the server sees of it: processes, figures, the log, keys, and what every request passes."""
