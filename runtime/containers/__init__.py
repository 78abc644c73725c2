"""Container images as sources: layouts of OCI, archives of `docker save`, and images in registries (by skopeo)."""
