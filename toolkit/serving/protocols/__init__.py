"""The routes of each protocol that the server speaks, a module each; all answer through ``serving.service``."""
