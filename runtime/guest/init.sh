#!/bin/busybox sh
# The first process of a guest: makes the root out of the devices that the host prepared, then becomes the agent.
# Run by busybox's ash from the initramfs; the host wrote what differs from boot to boot into /run/umlfs.
# A process more costs a guest some 10 ms, so there are few.

# The boot failed because of $*: tell the host, which ends us. If it cannot hear, as it is not mounted, end by ourselves.
fail() {
    [ -e /run/umlfs/control/report ] && echo "$*" >/run/umlfs/control/report && sleep 60
    exit 1
}

. /run/umlfs/modules.sh
/bin/busybox mount -a -T /run/umlfs/fstab.root 2>/run/umlfs/errors || fail "$(cat /run/umlfs/errors)"
. /run/umlfs/places.sh
mount -a -T /run/umlfs/fstab 2>/run/umlfs/errors || fail "$(cat /run/umlfs/errors)"
# Disk $2 and its partitions are called $1 too.
link() {
    for disk in /root/sys/block/"$2" /root/sys/block/"$2/$2"?*; do
        [ -e "$disk" ] && ln -s "${disk##*/}" "/dev/$1${disk##*/"$2"}"
    done
}
. /run/umlfs/links.sh

# The kernel allows a FUSE filesystem 1 % of the memory for pages not written back yet, and reads 128 KiB ahead.
for bdi in /root/sys/class/bdi/*; do
    echo 60 >"$bdi/max_ratio"
    echo 1024 >"$bdi/read_ahead_kb"
done 2>/dev/null
. /run/umlfs/network.sh
cd /root || fail "no root"
mount -o move . / && exec chroot . /run/umlfs/busybox sh /run/umlfs/agent.sh
fail "the guest cannot enter its root"
