# Tell the host which threads of $* have a signal to take, who wait for a lock of the host: the kernel would only let them
# take it once they have the lock.
interrupted() {
    for thread; do
        pending=0 blocked=0
        while read -r key mask; do
            case $key in
            SigPnd: | ShdPnd:) pending=$((pending | 0x$mask)) ;;
            SigBlk:) blocked=0x$mask ;;
            esac
        done 2>/dev/null <"/proc/$thread/status"
        [ $((pending & ~blocked)) = 0 ] || echo "$thread" >$control/interrupted
    done
}
