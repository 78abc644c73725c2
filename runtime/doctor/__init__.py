"""What this host lacks, and what mends it."""
