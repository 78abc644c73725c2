"""Vrings, vhost-user, and the devices that a guest's drivers talk to."""
