"""Commands: one file each, which reads options, calls the library, and prints."""
