"""Command lines made of all that can be combined, by pairs: what works alone must work together, or say why not."""
