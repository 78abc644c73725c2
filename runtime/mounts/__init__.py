"""Sources mounted on the host: starting, serving, finding and ending them."""
