"""Images by recipe: a base, packages, files, users and commands, in a TOML file."""
