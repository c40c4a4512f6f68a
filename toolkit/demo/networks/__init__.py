"""The networks by name, to be browsed without building one."""
