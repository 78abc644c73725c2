# Freeze the filesystems on the guest's disks, or let them go on (`freeze` and `go_on`, which the host calls). A frozen one has
# written back all that it holds, and is as after an unmount. Run by busybox's ash, whose applets need no files.

# The mount points of what is written to and on a disk, innermost first.
places() {
    found=
    while read -r device place kind options _; do
        case $device,$options in
        /dev/*,rw*) ;;
        *) continue ;;
        esac
        found="$place
$found"
    done </proc/mounts
    printf %b "$found"
}

thaw() {
    places | while read -r place; do
        fsfreeze --unfreeze "$place" 2>/dev/null
    done
    return 0
}

go_on() {
    read -r pid </run/umlfs/thaws && kill "$pid" && rm /run/umlfs/thaws
    thaw
} 2>/dev/null

# Whoever asked may be gone before they thaw.
freeze() {
    sync
    (sleep "$1" && thaw) >/dev/null 2>&1 </dev/null &
    echo $! >/run/umlfs/thaws
    places | while read -r place; do
        # One that cannot freeze (vfat) or is frozen already was synced.
        fsfreeze --freeze "$place" 2>/dev/null
    done
    return 0
}
