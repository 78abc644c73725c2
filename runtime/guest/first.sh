# Process 1 of a machine that stays up, until it becomes the guest's own init, or for good. The host puts `agent.sh` before
# this, and after it what sets it going (`become_init`, and which programs may be the init).

# Process 1 of a guest without an init of its own: sees to processes without parents, until $1 is to be done.
idle() {
    trap 'finish "poweroff -f"' USR1 USR2
    trap 'finish "reboot -f"' TERM INT
    : >$here/stays
    while :; do wait; sleep 1; done
}

# End all processes, let go of every filesystem, and do $1.
finish() {
    trap '' USR1 USR2 TERM INT
    kill -TERM -1
    sync
    kill -KILL -1
    umount -a -r 2>/dev/null
    exec $here/busybox $1
}

# Become the first program of $* that there is, or stay.
first_of() {
    for init; do
        if [ -x "$init" ]; then
            become_init "$init"
        fi
    done
    idle
}

# Mount what there is besides, start the agent, and become the first init of $* that there is.
begin() {
    . $here/mounts.sh
    { detached spared sh $here/serve.sh </dev/null >/dev/null; } 2>/dev/null
    first_of "$@"
}
