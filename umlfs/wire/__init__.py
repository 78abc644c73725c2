"""Every codec, both ends, without input or output: bytes in, typed messages out."""
