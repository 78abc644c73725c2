"""Clusters: machines that share disks and a network, brought up and taken down together."""
