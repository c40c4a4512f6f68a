"""The server in operation: its processes, figures, log and keys, and the middleware that every request passes."""
