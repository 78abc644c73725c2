"""The system calls that a kernel process may make, on x86_64, and why.

Found by running kernels 6.1, 6.12 and 7.2 with every device that we know. A guest's processes inherit the filter:
under ptrace theirs never reach it, and under `seccomp=on` the kernel's own filter traps them first (a trap goes before
an error). What is not in this table fails with EPERM.
"""

from __future__ import annotations

from typing import Final

TABLE: Final = """
# Data of files, sockets, pipes and terminals that are open
read=0 write=1 readv=19 writev=20 pread64=17 pwrite64=18 preadv=295 pwritev=296
close=3 close_range=436 lseek=8 dup=32 dup2=33 dup3=292 pipe=22 pipe2=293
fcntl=72 ioctl=16 fsync=74 fdatasync=75 ftruncate=77 fallocate=285 flock=73
# Waiting
poll=7 ppoll=271 select=23 pselect6=270 epoll_create=213 epoll_create1=291
epoll_ctl=233 epoll_wait=232 epoll_pwait=281 eventfd=284 eventfd2=290 pause=34
# Names: which of them there are is the matter of the empty root and of Landlock
open=2 openat=257 access=21 faccessat=269 faccessat2=439 stat=4 fstat=5 lstat=6
newfstatat=262 statx=332 statfs=137 fstatfs=138 readlink=89 readlinkat=267
getdents=78 getdents64=217 getcwd=79 mkdir=83 mkdirat=258 rmdir=84 unlink=87
unlinkat=263 chdir=80 umask=95 memfd_create=319
# Sockets: Unix ones only can be made, see RULES
socket=41 socketpair=53 bind=49 connect=42 listen=50 accept=43 accept4=288
sendto=44 recvfrom=45 sendmsg=46 recvmsg=47 sendmmsg=307 recvmmsg=299 shutdown=48
getsockname=51 getpeername=52 setsockopt=54 getsockopt=55
# Memory
mmap=9 mprotect=10 munmap=11 mremap=25 madvise=28 brk=12 mincore=27 msync=26
# Processes: its own
clone=56 fork=57 vfork=58 execve=59 execveat=322 exit=60 exit_group=231
wait4=61 waitid=247 kill=62 tkill=200 tgkill=234 ptrace=101 setsid=112 setpgid=109
getpgid=121 getpgrp=111 getsid=124 getpid=39 getppid=110 gettid=186 getuid=102
geteuid=107 getgid=104 getegid=108 set_tid_address=218 set_robust_list=273 rseq=334
prlimit64=302 getrlimit=97 setrlimit=160 getrusage=98 times=100 futex=202
sched_yield=24 sched_getaffinity=204 sched_getscheduler=145 sched_getparam=143
getpriority=140 membarrier=324 arch_prctl=158 prctl=157 seccomp=317 personality=135
modify_ldt=154
# Signals
rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 rt_sigpending=127 rt_sigsuspend=130
rt_sigtimedwait=128 rt_sigqueueinfo=129 rt_tgsigqueueinfo=297 sigaltstack=131
restart_syscall=219
# Time, which may be read
gettimeofday=96 time=201 clock_gettime=228 clock_getres=229 clock_nanosleep=230
nanosleep=35 timer_create=222 timer_settime=223 timer_gettime=224 timer_getoverrun=225
timer_delete=226 setitimer=38 getitimer=36 alarm=37 timerfd_create=283
timerfd_settime=286 timerfd_gettime=287 signalfd=282 signalfd4=289
# The host, a little of it
uname=63 sysinfo=99 getrandom=318 getcpu=309
"""
"""What is allowed, each with its number."""


def numbers(table: str = TABLE) -> dict[str, int]:
    """The system calls of a table by their names; what follows a # on a line is a remark."""
    words = (word for line in table.splitlines() for word in line.partition("#")[0].split())
    return {name: int(number, 0) for name, _, number in (word.partition("=") for word in words)}


AF_UNIX: Final = 1
NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
QUERY: Final = 0xFFFFFFFF
FIXED_ADDRESSES: Final = 0x0040000
"""ADDR_NO_RANDOMIZE, which a kernel may want for itself."""

TERMINAL_REQUESTS: Final = numbers("""
TCGETS=0x5401 TCSETS=0x5402 TCSETSW=0x5403 TCSETSF=0x5404 TCSBRK=0x5409 TCXONC=0x540A TCFLSH=0x540B
TIOCSCTTY=0x540E TIOCGPGRP=0x540F TIOCSPGRP=0x5410 TIOCOUTQ=0x5411 TIOCGWINSZ=0x5413 TIOCSWINSZ=0x5414
FIONREAD=0x541B FIONBIO=0x5421 TIOCNOTTY=0x5422 TIOCGPTN=0x80045430 TIOCSPTLCK=0x40045431 TIOCGPTPEER=0x5441
FIOCLEX=0x5451 FIOASYNC=0x5452 TCGETS2=0x802C542A TCSETS2=0x402C542B TCSETSW2=0x402C542C TCSETSF2=0x402C542D
""")
"""The requests of ioctl that are allowed: above all not TIOCSTI, which types on somebody's terminal."""

CARD_REQUESTS: Final = numbers("""
TUNSETIFF=0x400454CA TUNGETFEATURES=0x800454CF TUNSETOFFLOAD=0x400454D0 TUNSETVNETHDRSZ=0x400454D8
""")
"""Likewise, for cards on tap devices: of use to who was given /dev/net/tun, and one of its devices."""

PROCESS_REQUESTS: Final = numbers("""
PR_SET_PDEATHSIG=1 PR_GET_DUMPABLE=3 PR_SET_DUMPABLE=4 PR_SET_NAME=15 PR_GET_NAME=16 PR_GET_SECCOMP=21
PR_SET_SECCOMP=22 PR_SET_TSC=26 PR_SET_TIMERSLACK=29 PR_SET_NO_NEW_PRIVS=38 PR_GET_NO_NEW_PRIVS=39
PR_SET_THP_DISABLE=41 PR_SET_VMA=0x53564D41
""")
"""The requests of prctl that are allowed."""

VALUES: Final = {
    "socket": (0, (AF_UNIX,)),
    "socketpair": (0, (AF_UNIX,)),
    "ioctl": (1, (*TERMINAL_REQUESTS.values(), *CARD_REQUESTS.values())),
    "prctl": (0, tuple(PROCESS_REQUESTS.values())),
    "personality": (0, (QUERY, FIXED_ADDRESSES)),
    "prlimit64": (0, (0,)),
}
"""The argument of a system call (by its place) that is looked at, and the values that it may have."""

FORBIDDEN_BITS: Final = {"clone": (0, NEW_NAMESPACES)}
"""The argument of a system call, and the bits that it may not have."""

ABSENT: Final = {"clone3": 435, "openat2": 437, "epoll_pwait2": 441}
"""These are told to be unknown (ENOSYS), so that a C library falls back to an older one whose arguments can be seen."""
