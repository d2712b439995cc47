"""The command line; scheduled flows will stand beside it."""
