# The agent of a throwaway guest, its process 1: takes jobs from the control filesystem, one after the other. The host puts
# `agent.sh` before this, and a line: `settle` is the command that writes back what outlives the guest.

announcer=

# End what the command left running: it would keep its pipes open. $* are to live.
reap() {
    for process in /proc/[0-9]*; do
        case " 1 $announcer $* " in
        *" ${process#/proc/} "*) ;;
        *) kill -KILL "${process#/proc/}" ;;
        esac
    done 2>/dev/null
}

. $here/mounts.sh
while read -r number input output errors <$control/next; do
    : >"$here/pid.$number"
    signals "$number" &
    case $input in
    /dev/*) on_terminal "$number" "$input" ;;
    *) with_pipes "$number" "$input" "$output" "$errors" ;;
    esac
    $settle
    echo "exit $status" >"$control/$number/status"
done

# No more jobs: let go of every filesystem, so that those on disks are left clean. What is open stays mounted.
announcer=
reap
exec 9>$control/report
umount -a -r 2>/dev/null
echo settled >&9
while :; do sleep 60; done
