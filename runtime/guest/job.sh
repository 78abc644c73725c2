# Become the command: the host puts its own lines before this, which set `__control` and `__number`, and after it
# those that set the user, the working directory and the environment and call `become`. All names here begin
# with two underscores: the others may be variables of the command's environment.

echo $$ >"/run/umlfs/pid.$__number"
set -f
__user= __bare=

# The job cannot be run, because of $2: 126 ($1) where there is something that cannot, 127 where there is nothing.
fail() {
    echo "failed $1 $2" >"$__control/$__number/status"
    exit "$1"
}

# Look for command $1 as execvp does; the shell would take its own applets first.
find_command() {
    __path=$1
    case $1 in
    */*) return ;;
    esac
    local IFS=:
    for __directory in $PATH; do
        __path=${__directory:-.}/$1
        [ -f "$__path" ] && [ -x "$__path" ] && return
    done
    __path=
}

# Let the user open the streams anew, by /dev/stdout and the like.
give() {
    set --
    for __fd in /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; do
        if [ -p $__fd ] || [ -t "${__fd##*/}" ]; then
            set -- "$@" $__fd
        fi
    done
    [ $# = 0 ] || chown "$__user" "$@"
}

become() {
    __name=$1
    find_command "$__name"
    [ "$__path" ] || fail 127 "$__name: no such command in the guest's root"
    [ -e "$__path" ] || fail 127 "$__name: no such file in the guest's root"
    [ -f "$__path" ] && [ -x "$__path" ] || fail 126 "$__name: not an executable file in the guest's root"
    shift
    # Of the kernel's own error nothing would be told: the shell takes the file for a script.
    IFS= read -r -n 20 __head 2>/dev/null <"$__path"
    case $__head in
    $'\177ELF\2\1\1'*[$'\2\3']'>'*) ;;
    $'\177ELF'*) fail 126 "$__name: a program for another kind of machine than this guest is" ;;
    esac
    [ "$__bare" ] && give && exec $__busybox nsenter -S "$__bare" -G "$__bare" "$__path" "$@"
    [ "$__user" ] && give && exec su -p -s "$__path" -- "$__user" "$@"
    exec -a "$__name" "$__path" "$@"
}

# Be user $1, a name or a number: HOME and SHELL are as the password file has them. Root needs no entry.
be() {
    while IFS=: read -r __login __ __uid __ __ __home __shell; do
        if [ "$__login" = "$1" ] || [ "$__uid" = "$1" ]; then
            export USER="$__login" LOGNAME="$__login" HOME="$__home" SHELL="$__shell"
            [ "$__uid" = 0 ] || __user=$__login
            return
        fi
    done 2>/dev/null </etc/passwd
    case $1 in
    root | 0) export USER=root LOGNAME=root HOME=/ ;;
    *[!0-9]* | '') return 1 ;;
    *)
        export USER="$1" LOGNAME="$1" HOME=/ SHELL=/bin/sh
        __user=$1 __bare=$1
        ;;
    esac
}

# The login shell of the user, where there is one that lets them in.
shell() {
    case $SHELL in
    */nologin | */false) SHELL=/bin/sh ;;
    esac
    for __path in "$SHELL" /bin/bash /bin/sh; do
        [ -x "$__path" ] && become "$__path"
    done
    fail 127 "no shell in the guest's root"
}
