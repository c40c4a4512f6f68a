"""Options of every command, a module for each kind of them."""
