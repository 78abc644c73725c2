"""Machines that stay up: what describes one, who looks after it while it runs, and how others reach it."""
