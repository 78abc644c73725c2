# What every agent does: gives a job of the control filesystem its pipes or its terminal, and passes on signals. Run by
# busybox's ash, whose applets need no files. A fork costs milliseconds in UML, so there are few. The host puts
# `locks.sh` and `throwaway.sh` or `lasting.sh` after this.

here=/run/umlfs
control=$here/control
# What the kernel made of its command line is not for commands.
unset mem uml_dir
ulimit -Hn 524288

# The boot failed because of $*: tell the host, which ends us.
fail() {
    echo "$*" >$control/report && sleep 60
    exit 1
}

# Pass signals on to the process group of job $1 until the host says that it is over. Two are none. `NETWORK`: what the
# guest's cards go by was lost, and is there again. `LOCKS`: threads wait for locks.
signals() {
    while read -r name threads; do
        case $name in
        NETWORK) $here/busybox sh $here/reconnect.sh </dev/null ;;
        LOCKS) interrupted $threads ;;
        *)
            until read -r pid <"$here/pid.$1"; do :; done
            kill -s "$name" -- "-$pid"
            ;;
        esac
    done <"$control/$1/signals" 2>/dev/null
    exec $here/busybox rm -f "$here/pid.$1"
}

# Become busybox's applet $1, its arguments the others. Of what is called @, systemd keeps its hands at a shutdown: whoever
# waits for the host cannot be killed, and it would wait for that in vain.
spared() {
    applet=$1
    shift
    exec -a "@/$applet" $here/busybox "$@"
}

# Run $* in a process that is nobody's child, so that nobody need wait for it. Not by `&`: that has the shell ignore SIGINT
# and SIGQUIT there for good, and so would every command. Instead the process ends the one that waits for it.
detached() {
    (
        (
            read -r _ _ _ parent _ </proc/self/stat
            kill -KILL "$parent"
            "$@"
        )
        :
    )
}

# Run job $1 with what the host has for its input ($2), output ($3) and errors ($4): a pipe or null; `output` for
# errors that go where the output goes. A here-document is a pipe, and its other end can be opened by /proc: that
# makes one without a process, as FIFOs would, but can be opened anew by /dev/stdin without waiting for anyone.
with_pipes() {
    job=$control/$1
    pumps=
    exec 3</dev/null 6>/dev/null 8>/dev/null
    if [ "$2" = pipe ]; then
        exec 3<<-END
	END
        exec 4>/proc/self/fd/3
        # Not cat: it would have the kernel gather 16 MiB first, for all that it sees is a file.
        spared dd bs=64k <"$job/stdin" >&4 2>/dev/null 3<&- 4>&- 6>&- 8>&- &
        exec 4>&-
    fi
    if [ "$3" = pipe ]; then
        exec 5<<-END
	END
        exec 6>/proc/self/fd/5
        spared cat <&5 >"$job/stdout" 2>/dev/null 3<&- 5<&- 6>&- 8>&- &
        pumps=$!
        exec 5<&-
    fi
    case $4 in
    output) exec 8>&6 ;;
    pipe)
        exec 7<<-END
	END
        exec 8>/proc/self/fd/7
        spared cat <&7 >"$job/stderr" 2>/dev/null 3<&- 6>&- 7<&- 8>&- &
        pumps="$pumps $!"
        exec 7<&-
        ;;
    esac
    (exec setsid $here/busybox sh "$job/script" <&3 >&6 2>&8 3<&- 6>&- 8>&-)
    status=$?
    exec 3<&- 6>&- 8>&-
    reap $pumps
    [ ! "$pumps" ] || wait $pumps
}

# Run job $1 on terminal $2.
on_terminal() {
    (exec setsid -c $here/busybox sh "$control/$1/script" <>"$2" >&0 2>&1)
    status=$?
    reap
}
