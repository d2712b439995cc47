"""The audit's stages, one file per noun; files that begin with an underscore are the only ones that touch the outside."""
