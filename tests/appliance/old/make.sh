#!/bin/sh
# Make jfs.img.xz and reiserfs.img.xz again, in the current directory: what `make_tree` in tests/appliance/images.py makes
# (its directory is $1), in filesystems that few systems have the programs for (packages jfsutils and reiserfsprogs).
set -e
truncate -s 16M jfs.img
mkfs.jfs -q -L my-jfs jfs.img
truncate -s 33M reiserfs.img
mkreiserfs -q -f -f -l my-reiserfs -s 513 reiserfs.img
for image in jfs.img reiserfs.img; do
    uml cp -r --owner 0:0 "$1"/* "$image:/"
    xz -9e "$image"
done
