"""Data sets as people have them: folders, CSV tables, archives, IDX files. All become files with classes."""
