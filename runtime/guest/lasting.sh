# The agent of a machine that stays up: takes jobs from the control filesystem and runs them side by side. The host puts
# `agent.sh` before this.

# Run job $1, with its streams in $2 to $4 or its terminal in $2.
run() {
    : >"$here/pid.$1"
    signals "$1" &
    case $2 in
    /dev/*)
        stty sane <"$2"
        on_terminal "$1" "$2"
        ;;
    *) with_pipes "$@" ;;
    esac
    echo "exit $status" >"$control/$1/status"
}

# A process that a command left running lives on: that is what it was started for.
reap() { :; }

while read -r number input output errors <$control/next; do
    # Left to process 1, which sees to its end: this shell, waiting for the next job, would leave a zombie.
    detached run "$number" "$input" "$output" "$errors"
done

# The host ends the machine and cannot wait: what is written so far is kept, and no more.
sync
echo u >/proc/sysrq-trigger
echo settled >$control/report
