# Have this guest join its cluster, and mount the shared disks. Run by busybox's ash, whose applets need no files. The host
# puts before this what differs: `cluster`, `me`, `threshold`, `idle`, and after it the steps.
set -e

at=/sys/kernel/config/cluster/$cluster
here=/run/umlfs

# Load module $1, a file below $modules, unless it is there.
module() {
    [ -d "/sys/module/$1" ] || insmod "$modules/$2"
}

# The kernel's cluster: who is in it, and how long a node may be silent.
form() {
    mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
    echo o2cb >/sys/fs/ocfs2/cluster_stack
    # What the kernel runs when the last mount is gone, with `-K -u REGION`.
    printf '#!%s/busybox sh\nrmdir "%s/heartbeat/$3"\n' $here "$at" >$here/stop-heartbeat
    chmod 755 $here/stop-heartbeat
    echo $here/stop-heartbeat >/proc/sys/fs/ocfs2/nm/hb_ctl_path
    mkdir -p "$at"
    echo "$threshold" >"$at/heartbeat/dead_threshold"
    # A node that lost the others is ended, as one of a cluster must be: by a panic, which the host hears of.
    echo panic >"$at/fence_method"
    # Never below the delay of keepalives, nor above its own limit while it changes.
    echo "$idle" >"$at/idle_timeout_ms"
}

# Node number $1 is called $2, and listens at $3.
node() {
    [ ! -d "$at/node/$2" ] || return 0
    mkdir "$at/node/$2"
    echo 7777 >"$at/node/$2/ipv4_port"
    echo "$3" >"$at/node/$2/ipv4_address"
    echo "$1" >"$at/node/$2/num"
    [ "$2" != "$me" ] || echo 1 >"$at/node/$2/local"
}

# Beat on disk $1, for the filesystem $2, from sector $3 on, where $4 nodes have room; mount it at $5.
join() {
    if mountpoint -q "$5"; then return; fi
    region=$at/heartbeat/$2
    mkdir -p "$region" "$5"
    echo 512 >"$region/block_bytes"
    echo "$3" >"$region/start_block"
    echo "$4" >"$region/blocks"
    exec 9<>"$1"
    echo 9 >"$region/dev"
    exec 9<&-
    mount -i -t ocfs2 -o heartbeat=local "$1" "$5"
}
