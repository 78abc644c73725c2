# Wait until process 1 has brought the guest up, and print what came of it: `running`, or what systemd calls it. Run by busybox
# as a command in the guest; $1 is where its /proc is.

proc=${1:-/proc}
here=/run/umlfs

# The names of the processes whose parent is process 1.
children() {
    for each in "$proc"/[0-9]*/status; do
        while read -r key value; do
            case $key in
            Name:) name=$value ;;
            PPid:)
                [ "$value" != 1 ] || echo "$name"
                break
                ;;
            esac
        done <"$each"
    done 2>/dev/null
}

# systemd knows by itself. It cannot be asked in its first moments, and an old one cannot wait.
systemd() {
    while :; do
        state=$(systemctl is-system-running --wait 2>/dev/null)
        [ "$state" ] || state=$(systemctl is-system-running 2>/dev/null)
        case $state in
        running | degraded | maintenance | stopping) break ;;
        esac
        sleep 0.2
    done
    echo "$state"
}

# Others run scripts, one after the other, and then what is to go on for good: they are up when one of that is there, and no
# such script has been for a second.
scripts() {
    quiet=0
    while [ $quiet -lt 5 ]; do
        sleep 0.2
        quiet=$((quiet + 1))
        lasting=
        for child in $(children); do
            case $child in
            rc | rc? | rc.* | rcS | openrc | startpar) quiet=0 ;;
            *) lasting=1 ;;
            esac
        done
        [ "$lasting" ] || quiet=0
    done
    echo running
}

# Process 1 is our own until it becomes the guest's init, or says that it stays.
while program=$(readlink "$proc/1/exe") && [ "$program" = $here/busybox ] && [ ! -e $here/stays ]; do sleep 0.1; done
case ${program##*/} in
systemd) systemd ;;
init | busybox | openrc-init | runit) [ "$program" = $here/busybox ] && echo running || scripts ;;
*) echo running ;; # a program that is no init
esac
