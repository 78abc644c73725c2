"""Network Block Devices: server and client."""
