# Disks of the kernel's spare devices, as they come and go; run by the agent's busybox. The host puts a line after this: what
# to do with which virtio-uml device ($1), for the disk called $2 of $3 sectors.

here=/run/umlfs

# Say why not, and end: $1 is the exit status.
refuse() {
    status=$1
    shift
    echo "$*" >&2
    exit "$status"
}

# Set `disk` to where the device is in /sys, and `node` to what is in /dev.
find_disk() {
    for disk in /sys/bus/platform/devices/virtio-uml."$1"/virtio*/block/*; do :; done
    [ -e "$disk" ] || refuse 1 "the guest's kernel has no disk for it"
    node=/dev/${disk##*/}
}

# Wait until the kernel has learnt that the disk has $1 sectors.
await_size() {
    tries=0
    until read -r sectors <"$disk/size" && [ "$sectors" = "$1" ]; do
        [ $((tries += 1)) -le 300 ] || refuse 1 "the guest's kernel does not learn that the size changed"
        sleep 0.01
    done
}

# Let the guest's udev look at the disk again.
tell_udev() {
    echo change >"$disk/uevent"
}

# The disk is there: it is read-only for $4 of `ro`, and has no TRIM for $5 of 0.
plug() {
    # Those of the boot load it, if there are any.
    [ -d /sys/bus/virtio/drivers/virtio_blk ] || for module in $here/later/*; do
        [ ! -e "$module" ] || insmod "$module" || exit
    done
    find_disk "$1"
    await_size "$3"
    blockdev --set"$4" "$node" || exit
    read -r limit <"$disk/queue/discard_max_hw_bytes"
    echo $((limit * $5)) >"$disk/queue/discard_max_bytes"
    echo "UMLFS_UBD=$2" >"$here/disk.$1"
    set -- "$2" "$disk/${disk##*/}"?*
    # The kernel has looked for partitions if it found disk and device at the same time.
    [ -e "$2" ] || blockdev --rereadpt "$node"
    for each in "$disk" "$disk/${disk##*/}"?*; do
        [ ! -e "$each" ] || ln -sf "${each##*/}" "/dev/$1${each##*/"${disk##*/}"}"
    done
    tell_udev
}

# Who has it open, if anybody has. First those who can be named.
user() {
    numbers=
    for each in "$disk" "$disk/${disk##*/}"?*; do
        [ ! -e "$each" ] || { read -r number <"$each/dev" && numbers="$numbers $number "; }
    done
    while read -r _ _ number _ place _; do
        case $numbers in *" $number "*) echo "mounted on $place" && return ;; esac
    done </proc/self/mountinfo
    # Opens of all such disks are counted together.
    read -r opens 2>/dev/null </sys/module/virtio_blk/refcnt && [ "$opens" = 0 ] && return
    for each in /sys/block/loop*/loop/backing_file; do
        [ -e "$each" ] && read -r file <"$each" && set -- "$@" "$file"
    done
    stat -L -c '%F:%t:%T:%n' /proc/[0-9]*/fd/* "$@" 2>/dev/null | while IFS=: read -r kind major minor path; do
        case $kind/$numbers in "block special file/"*" $((0x$major)):$((0x$minor)) "*) ;; *) continue ;; esac
        case $path in
        /proc/*/fd/*)
            process=${path#/proc/}
            process=${process%%/*}
            name=
            read -r name 2>/dev/null <"/proc/$process/comm"
            echo "by process $process ($name)"
            ;;
        *) echo "behind a loop device" ;;
        esac
        return
    done
}

# Refuse if anybody has it open.
must_be_free() {
    found=$(user)
    # Whoever holds a disk holds it against a change of its block size, to what it is already.
    [ "$found" ] || blockdev --setbsz "$(blockdev --getbsz "$node")" "$node" 2>/dev/null || found="by the guest's kernel"
    [ ! "$found" ] || refuse 16 "$found"
}

# May the disk go?
check() {
    find_disk "$1"
    must_be_free
}

# The disk has no sectors any more. Whoever opened it before is found now; later there is nothing to open.
unplug() {
    find_disk "$1"
    await_size 0
    must_be_free
    blockdev --rereadpt "$node" 2>/dev/null || refuse 16 "by the guest's kernel"
    rm -f "$here/disk.$1" "/dev/$2" "/dev/$2"[0-9]*
    blockdev --setrw "$node"
    tell_udev
}
