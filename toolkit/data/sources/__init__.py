"""What a person gives: folders, CSV tables, archives, IDX files; all become files with classes."""
