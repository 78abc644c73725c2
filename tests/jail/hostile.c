/* A hostile kernel: poses as one (it has the text `User Mode Linux` in it) and tries to get out of its jail.
 *
 * TRICKS is the list: a name, and an expression that is true if the trick worked. Each is tried in a process of its own,
 * and told on standard error as `trick NAME worked` or `trick NAME failed ERRNO`. What the tricks aim at comes as words
 * of the kernel's command line: `secret=FILE outside=DIRECTORY parent=PID victim=PID tcp=PORT abstract=NAME socket=PATH`,
 * and the sockets of services by their usual names: `agent=PATH bus=PATH docker=PATH log=PATH`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PATIENCE 20 /* seconds for a trick: one that hangs is killed, and has failed */

static const char *mark = "User Mode Linux";
static char **words;

static const char *word(const char *name)
{
	size_t length = strlen(name);
	for (char **each = words; *each; each++)
		if (!strncmp(*each, name, length) && (*each)[length] == '=')
			return *each + length + 1;
	return "";
}

static pid_t pid(const char *name) { return atoi(word(name)); }

static const char *join(const char *directory, const char *name)
{
	static char path[2][4096];
	static int turn;
	turn = !turn;
	snprintf(path[turn], sizeof path[turn], "%s/%s", directory, name);
	return path[turn];
}

static const char *outside(const char *name) { return join(word("outside"), name); }
static const char *own(const char *name) { return join(word("uml_dir"), name); }

/* ---- files */

static int opens(const char *path, int flags) { return open(path, flags | O_CLOEXEC, 0600) >= 0; }

static int lists(const char *path)
{
	DIR *directory = opendir(path);
	return directory && readdir(directory);
}

static int proc(const char *of, const char *name, int flags)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%s/%s", of, name);
	return opens(path, flags);
}

static int times(const char *path) { return utimensat(AT_FDCWD, path, NULL, 0) == 0; }

static int watches(const char *path)
{
	int fd = inotify_init1(IN_CLOEXEC);
	return fd >= 0 && inotify_add_watch(fd, path, IN_MODIFY) >= 0;
}

static int by_handle(void)
{
	struct file_handle *handle = calloc(1, sizeof *handle + 128);
	int mount;
	handle->handle_bytes = 128;
	return name_to_handle_at(AT_FDCWD, "/", handle, &mount, 0) == 0 && open_by_handle_at(AT_FDCWD, handle, O_RDONLY) >= 0;
}

static int climbs(void)
{
	int fd = open("/", O_PATH | O_DIRECTORY);
	for (int i = 0; i < 64; i++)
		fd = openat(fd, "..", O_PATH | O_DIRECTORY);
	return openat(fd, word("secret") + 1, O_RDONLY) >= 0;
}

/* Bytes that a directory takes: more than `limit`? */
static int fills(const char *directory, long long limit)
{
	static char block[1 << 20];
	long long written = 0;
	memset(block, 'x', sizeof block);
	for (int number = 0; number < 64; number++) {
		char name[32];
		snprintf(name, sizeof name, "fill%d", number);
		int fd = open(join(directory, name), O_WRONLY | O_CREAT, 0600);
		ssize_t some;
		if (fd < 0)
			break;
		while (written <= limit && (some = write(fd, block, sizeof block)) > 0)
			written += some;
		close(fd);
	}
	return written > limit;
}

static int makes_files(const char *directory, int limit)
{
	int number = 0;
	for (; number < limit; number++) {
		char name[32];
		snprintf(name, sizeof name, "many%d", number);
		if (mkdir(join(directory, name), 0700))
			break;
	}
	return number >= limit;
}

/* ---- sockets */

static int connects(int family, int kind, const void *address, socklen_t length)
{
	int fd = socket(family, kind, 0);
	return fd >= 0 && connect(fd, address, length) == 0;
}

static int inet(int kind, int binding)
{
	struct sockaddr_in address = {AF_INET, htons(binding ? 0 : atoi(word("tcp"))), {htonl(INADDR_LOOPBACK)}, {0}};
	if (!binding)
		return connects(AF_INET, kind, &address, sizeof address);
	int fd = socket(AF_INET, kind, 0);
	return fd >= 0 && bind(fd, (void *)&address, sizeof address) == 0;
}

static int sends_udp(void)
{
	struct sockaddr_in address = {AF_INET, htons(atoi(word("tcp"))), {htonl(INADDR_LOOPBACK)}, {0}};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	return fd >= 0 && sendto(fd, "x", 1, 0, (void *)&address, sizeof address) == 1;
}

static int unix_socket_of(int kind, const char *name, int abstract)
{
	struct sockaddr_un address = {AF_UNIX, {0}};
	strncpy(address.sun_path + abstract, name, sizeof address.sun_path - 2);
	return connects(AF_UNIX, kind, &address, offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name));
}

static int unix_socket(const char *name, int abstract) { return unix_socket_of(SOCK_STREAM, name, abstract); }

static int binds(const char *path)
{
	struct sockaddr_un address = {AF_UNIX, {0}};
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	return fd >= 0 && bind(fd, (void *)&address, sizeof address) == 0;
}

static int makes(int family, int kind, int protocol) { return socket(family, kind, protocol) >= 0; }

/* ---- processes */

static int attaches(pid_t whom) { return ptrace(PTRACE_SEIZE, whom, 0, 0) == 0; }

static int reads_memory(pid_t whom)
{
	char byte;
	struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
	return syscall(SYS_process_vm_readv, whom, &here, 1, &there, 1, 0) == 1 || errno == EFAULT;
}

static int writes_memory(pid_t whom)
{
	char byte = 0;
	struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
	return syscall(SYS_process_vm_writev, whom, &here, 1, &there, 1, 0) == 1 || errno == EFAULT;
}

static int owns_signals_of(pid_t whom)
{
	int ends[2];
	return pipe(ends) == 0 && fcntl(ends[0], F_SETOWN, whom) == 0;
}

static int forks(int limit)
{
	int count = 0;
	for (; count < limit; count++) {
		pid_t child = fork();
		if (child < 0)
			break;
		if (!child)
			for (;;)
				pause();
	}
	int why = errno;
	signal(SIGTERM, SIG_IGN);
	kill(0, SIGTERM);
	errno = why;
	return count >= limit;
}

static int maps(size_t length, int kind)
{
	return mmap(NULL, length, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

/* A file without a name, as large as it may be made; nothing is written. */
static int fills_memory_file(long long size)
{
	int fd = syscall(SYS_memfd_create, "x", 0);
	signal(SIGXFSZ, SIG_IGN);
	return fd >= 0 && ftruncate(fd, size) == 0;
}

static int limit_can_be_raised(int which)
{
	struct rlimit more = {RLIM_INFINITY, RLIM_INFINITY};
	return setrlimit(which, &more) == 0;
}

static int leaves_core(void)
{
	struct rlimit limit;
	return getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max > 0;
}

static int descriptors(int limit)
{
	int count = 0;
	for (int fd = 3; fd < 4096; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count > limit;
}

static int has_capabilities(void)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	return syscall(SYS_capget, &header, data) == 0 && (data[0].effective || data[0].permitted || data[1].effective);
}

static int can_gain_privileges(void) { return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0; }

static int is_root(void)
{
	return syscall(SYS_setresuid, 0, 0, 0) == 0 && opens("/proc/1/environ", O_RDONLY);
}

/* ---- programs */

static int executes(const char *path)
{
	pid_t child = fork();
	int status;
	if (!child) {
		execl(path, path, "-c", "exit 0", NULL);
		_exit(127);
	}
	return waitpid(child, &status, 0) == child && status == 0;
}

static int executes_memory(void)
{
	int fd = syscall(SYS_memfd_create, "x", 0);
	return fd >= 0 && write(fd, "\x7f" "ELF", 4) == 4 &&
	       (syscall(SYS_execveat, fd, "", (char *[]){"x", NULL}, NULL, AT_EMPTY_PATH) == 0 || errno == ENOEXEC);
}

static int types_on_terminal(void)
{
	int done = 0;
	for (int fd = 0; fd < 256; fd++)
		done |= ioctl(fd, TIOCSTI, "x") == 0;
	return done;
}

/* TIOCLINUX: what is selected on a console, typed. */
static int pastes_on_terminal(void)
{
	int done = 0;
	for (int fd = 0; fd < 256; fd++)
		done |= ioctl(fd, 0x541C, &(char){3}) == 0;
	return done;
}

/* ---- system calls that no kernel needs */

static int call(long number) { return syscall(number, 0, 0, 0, 0, 0, 0) >= 0 || errno == EFAULT || errno == EINVAL; }

static int clones(unsigned long flags)
{
	long child = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
	if (!child)
		_exit(0);
	return child > 0;
}

static int clones3(unsigned long flags)
{
	uint64_t arguments[8] = {flags, 0, 0, 0, SIGCHLD, 0, 0, 0};
	long child = syscall(435, arguments, sizeof arguments);
	if (!child)
		_exit(0);
	return child > 0;
}

#define TRICKS \
	TRICK("open-secret", opens(word("secret"), O_RDONLY)) \
	TRICK("open-secret-to-write", opens(word("secret"), O_WRONLY)) \
	TRICK("open-by-dots", climbs()) \
	TRICK("open-by-handle", by_handle()) \
	TRICK("open-passwd", opens("/etc/passwd", O_RDONLY)) \
	TRICK("open-shadow", opens("/etc/shadow", O_RDONLY)) \
	TRICK("open-own-image-to-write", opens(words[0], O_WRONLY)) \
	TRICK("create-outside", opens(outside("new"), O_WRONLY | O_CREAT)) \
	TRICK("create-unnamed-outside", opens(word("outside"), O_WRONLY | O_TMPFILE)) \
	TRICK("create-in-tmp", opens("/tmp/hostile-kernel", O_WRONLY | O_CREAT)) \
	TRICK("create-in-root", opens("/hostile-kernel", O_WRONLY | O_CREAT)) \
	TRICK("create-beside-sockets", opens(join(word("uml_dir"), "../hostile"), O_WRONLY | O_CREAT)) \
	TRICK("go-outside", chdir(word("outside")) == 0) \
	TRICK("watch-secret", watches(word("secret"))) \
	TRICK("attributes-of-secret", listxattr(word("secret"), NULL, 0) >= 0) \
	TRICK("list-outside", lists(word("outside"))) \
	TRICK("list-home", lists("/root") || lists("/home")) \
	TRICK("list-sys", lists("/sys")) \
	TRICK("list-proc", lists("/proc/self/fd") || lists("/proc/1")) \
	TRICK("stat-secret", access(word("secret"), F_OK) == 0) \
	TRICK("rename-secret", rename(word("secret"), own("stolen")) == 0) \
	TRICK("link-secret", link(word("secret"), own("linked")) == 0) \
	TRICK("symlink-secret", symlink(word("secret"), own("symlink")) == 0 && opens(own("symlink"), O_RDONLY)) \
	TRICK("unlink-secret", unlink(outside("to-unlink")) == 0) \
	TRICK("chmod-secret", chmod(word("secret"), 0777) == 0) \
	TRICK("chown-secret", chown(word("secret"), 1, 1) == 0) \
	TRICK("truncate-secret", truncate(word("secret"), 0) == 0) \
	TRICK("touch-secret", times(word("secret"))) \
	TRICK("make-directory-outside", mkdir(outside("directory"), 0700) == 0) \
	TRICK("make-device", mknod(own("disk"), S_IFBLK | 0600, makedev(254, 0)) == 0) \
	TRICK("open-dev-mem", opens("/dev/mem", O_RDONLY) || opens("/dev/kmem", O_RDONLY)) \
	TRICK("open-dev-tun", opens("/dev/net/tun", O_RDWR)) \
	TRICK("open-dev-kvm", opens("/dev/kvm", O_RDWR)) \
	TRICK("open-dev-fuse", opens("/dev/fuse", O_RDWR)) \
	TRICK("open-dev-vhost", opens("/dev/vhost-net", O_RDWR) || opens("/dev/vhost-vsock", O_RDWR)) \
	TRICK("open-dev-input", opens("/dev/uinput", O_WRONLY) || opens("/dev/input/event0", O_RDONLY)) \
	TRICK("open-dev-userfaultfd", opens("/dev/userfaultfd", O_RDWR)) \
	TRICK("open-dev-log", opens("/dev/kmsg", O_RDONLY)) \
	TRICK("open-dev-vda", opens("/dev/vda", O_RDONLY) || opens("/dev/sda", O_RDONLY)) \
	TRICK("open-terminal", opens("/dev/tty", O_RDWR) || opens("/dev/console", O_RDWR)) \
	TRICK("open-others-pty", opens("/dev/pts/0", O_RDWR)) \
	TRICK("type-on-terminal", types_on_terminal()) \
	TRICK("paste-on-terminal", pastes_on_terminal()) \
	TRICK("fill-own-directory", fills(word("uml_dir"), 4ll << 20)) \
	TRICK("fill-memory-directory", fills(getenv("TMPDIR"), 160ll << 20)) \
	TRICK("fill-device-directory", fills("/dev/shm", 1 << 20)) \
	TRICK("many-files", makes_files(word("uml_dir"), 1000)) \
	TRICK("proc-parent-mem", proc(word("parent"), "mem", O_RDWR)) \
	TRICK("proc-parent-environ", proc(word("parent"), "environ", O_RDONLY)) \
	TRICK("proc-parent-root", proc(word("parent"), "root/etc/passwd", O_RDONLY)) \
	TRICK("proc-victim-environ", proc(word("victim"), "environ", O_RDONLY)) \
	TRICK("proc-first-environ", proc("1", "environ", O_RDONLY)) \
	TRICK("proc-sysrq", opens("/proc/sysrq-trigger", O_WRONLY)) \
	TRICK("proc-sysctl", opens("/proc/sys/kernel/core_pattern", O_WRONLY)) \
	TRICK("proc-keys", opens("/proc/keys", O_RDONLY)) \
	TRICK("environment", getenv("UMLFS_TEST_SECRET") != NULL || getenv("USER") != NULL) \
	TRICK("environment-of-services", getenv("SSH_AUTH_SOCK") || getenv("DBUS_SESSION_BUS_ADDRESS") || getenv("DOCKER_HOST")) \
	TRICK("descriptors", descriptors(2)) \
	TRICK("trace-parent", attaches(pid("parent"))) \
	TRICK("trace-victim", attaches(pid("victim"))) \
	TRICK("trace-first", attaches(1)) \
	TRICK("read-parents-memory", reads_memory(pid("parent"))) \
	TRICK("write-parents-memory", writes_memory(pid("parent"))) \
	TRICK("advise-victims-memory", call(440)) \
	TRICK("steal-descriptor", syscall(438, 0, 0, 0) >= 0 || errno == EBADF) \
	TRICK("compare-victim", syscall(SYS_kcmp, pid("victim"), pid("victim"), 0, 0, 0) >= 0) \
	TRICK("signal-parent", kill(pid("parent"), 0) == 0) \
	TRICK("signal-victim", kill(pid("victim"), SIGTERM) == 0) \
	TRICK("signal-victims-thread", syscall(SYS_tgkill, pid("victim"), pid("victim"), SIGTERM) == 0) \
	TRICK("signal-by-pidfd", syscall(434, pid("victim"), 0) >= 0) \
	TRICK("signal-by-owner", owns_signals_of(pid("victim"))) \
	TRICK("limit-victim", prlimit(pid("victim"), RLIMIT_NOFILE, &(struct rlimit){1, 1}, NULL) == 0) \
	TRICK("renice-victim", setpriority(PRIO_PROCESS, pid("victim"), 19) == 0) \
	TRICK("move-victim", sched_setaffinity(pid("victim"), sizeof(cpu_set_t), &(cpu_set_t){{1}}) == 0) \
	TRICK("input-priority-of-victim", syscall(SYS_ioprio_set, 1, pid("victim"), 3 << 13) == 0) \
	TRICK("real-time", sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){1}) == 0) \
	TRICK("before-all-others", setpriority(PRIO_PROCESS, 0, -20) == 0) \
	TRICK("schedule-victim", sched_setscheduler(pid("victim"), SCHED_IDLE, &(struct sched_param){0}) == 0) \
	TRICK("tcp-connect", inet(SOCK_STREAM, 0)) \
	TRICK("tcp-bind", inet(SOCK_STREAM, 1)) \
	TRICK("udp-send", sends_udp()) \
	TRICK("udp-bind", inet(SOCK_DGRAM, 1)) \
	TRICK("raw-socket", makes(AF_INET, SOCK_RAW, IPPROTO_ICMP)) \
	TRICK("packet-socket", makes(AF_PACKET, SOCK_RAW, 0)) \
	TRICK("netlink-socket", makes(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)) \
	TRICK("audit-socket", makes(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT)) \
	TRICK("vsock-socket", makes(AF_VSOCK, SOCK_STREAM, 0)) \
	TRICK("bluetooth-socket", makes(AF_BLUETOOTH, SOCK_RAW, 1)) \
	TRICK("xdp-socket", makes(AF_XDP, SOCK_RAW, 0)) \
	TRICK("key-socket", makes(AF_KEY, SOCK_RAW, 2)) \
	TRICK("crypto-socket", makes(AF_ALG, SOCK_SEQPACKET, 0)) \
	TRICK("abstract-socket", unix_socket(word("abstract"), 1)) \
	TRICK("path-socket", unix_socket(word("socket"), 0)) \
	TRICK("ssh-agent", unix_socket(word("agent"), 0)) \
	TRICK("message-bus", unix_socket(word("bus"), 0)) \
	TRICK("docker", unix_socket(word("docker"), 0)) \
	TRICK("system-bus", unix_socket("/run/dbus/system_bus_socket", 0) || unix_socket("/run/systemd/private", 0)) \
	TRICK("log-socket", unix_socket_of(SOCK_DGRAM, word("log"), 0) || unix_socket_of(SOCK_DGRAM, "/dev/log", 0)) \
	TRICK("bind-socket-outside", binds(outside("listener"))) \
	TRICK("mount", mount("x", "/", "tmpfs", 0, NULL) == 0) \
	TRICK("mount-proc", mount("proc", word("uml_dir"), "proc", 0, NULL) == 0) \
	TRICK("mount-new-api", call(428) || call(430)) \
	TRICK("unmount", umount2("/dev/pts", MNT_DETACH) == 0) \
	TRICK("remount", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) == 0) \
	TRICK("pivot-root", syscall(SYS_pivot_root, ".", ".") == 0) \
	TRICK("chroot", chroot("/dev") == 0) \
	TRICK("unshare-user", unshare(CLONE_NEWUSER) == 0) \
	TRICK("unshare-mount", unshare(CLONE_NEWNS) == 0) \
	TRICK("unshare-network", unshare(CLONE_NEWNET) == 0) \
	TRICK("clone-user", clones(CLONE_NEWUSER)) \
	TRICK("clone-user-and-mount", clones(CLONE_NEWUSER | CLONE_NEWNS)) \
	TRICK("clone3-user", clones3(CLONE_NEWUSER)) \
	TRICK("setns", call(SYS_setns)) \
	TRICK("bpf", call(SYS_bpf)) \
	TRICK("io-uring", call(425)) \
	TRICK("userfaultfd", call(SYS_userfaultfd)) \
	TRICK("keyctl", call(SYS_keyctl)) \
	TRICK("add-key", call(SYS_add_key)) \
	TRICK("request-key", call(SYS_request_key)) \
	TRICK("perf-event", call(SYS_perf_event_open)) \
	TRICK("kexec", call(SYS_kexec_load) || call(SYS_kexec_file_load)) \
	TRICK("load-module", call(SYS_init_module) || call(SYS_finit_module)) \
	TRICK("unload-module", call(SYS_delete_module)) \
	TRICK("reboot", call(SYS_reboot)) \
	TRICK("swap", call(SYS_swapon) || call(SYS_swapoff)) \
	TRICK("accounting", call(SYS_acct)) \
	TRICK("kernel-log", syscall(SYS_syslog, 3, "", 0) >= 0) \
	TRICK("host-name", sethostname("x", 1) == 0) \
	TRICK("clock", call(SYS_clock_settime) || call(SYS_settimeofday)) \
	TRICK("adjust-clock", call(SYS_adjtimex) || call(SYS_clock_adjtime)) \
	TRICK("ports", call(SYS_iopl) || call(SYS_ioperm)) \
	TRICK("fanotify", call(SYS_fanotify_init)) \
	TRICK("quota", call(SYS_quotactl)) \
	TRICK("numa", call(SYS_mbind) || call(SYS_migrate_pages) || call(SYS_move_pages)) \
	TRICK("shared-memory", syscall(SYS_shmget, 1, 4096, 01600) >= 0) \
	TRICK("message-queue", syscall(SYS_msgget, 1, 01600) >= 0) \
	TRICK("semaphores", syscall(SYS_semget, 1, 1, 01600) >= 0) \
	TRICK("posix-queue", syscall(SYS_mq_open, "hostile", O_RDWR | O_CREAT, 0600, NULL) >= 0) \
	TRICK("secret-memory", call(447)) \
	TRICK("personality", syscall(SYS_personality, 0x20000) >= 0) \
	TRICK("32-bit-call", ({ long got; asm volatile("int $0x80" : "=a"(got) : "a"(20)); got > 0; })) \
	TRICK("set-user", is_root()) \
	TRICK("set-groups", syscall(SYS_setgroups, 1, &(gid_t){0}) == 0) \
	TRICK("set-file-user", (setfsuid(0), setfsuid(-1) == 0 && geteuid() != 0)) \
	TRICK("capabilities", has_capabilities()) \
	TRICK("gain-privileges", can_gain_privileges()) \
	TRICK("execute-shell", executes("/bin/sh")) \
	TRICK("execute-memory", executes_memory()) \
	TRICK("core-dump", leaves_core()) \
	TRICK("raise-limits", limit_can_be_raised(RLIMIT_NPROC) || limit_can_be_raised(RLIMIT_FSIZE)) \
	TRICK("fork-bomb", forks(6000)) \
	TRICK("memory-bomb", maps(1ul << 30, MAP_PRIVATE)) \
	TRICK("shared-memory-bomb", maps(8ul << 30, MAP_SHARED)) \
	TRICK("unnamed-file-bomb", fills_memory_file(8ll << 30)) \
	TRICK("locked-memory", mlock(word("secret"), 1) == 0)

/* With a word `only=NAME,NAME` the others are left out: outside of a jail many would do harm. */
static int is_wanted(const char *name)
{
	const char *only = word("only"), *found = strstr(only, name);
	size_t length = strlen(name);
	for (; found; found = strstr(found + 1, name))
		if ((found == only || found[-1] == ',') && (!found[length] || found[length] == ','))
			return 1;
	return !*only;
}

/* Try one trick: whether it worked; -1 behind the last. */
static int try_trick(int wanted, const char **name)
{
	int number = 0;
#define TRICK(label, expression) \
	if (number++ == wanted) { \
		*name = label; \
		errno = 0; \
		if (!is_wanted(label)) \
			_exit(0); \
		return !!(expression); \
	}
	TRICKS
#undef TRICK
	return -1;
}

/* In a process of its own, which says what came of it. */
static int tell(int number)
{
	const char *name = "";
	int status;
	pid_t child = fork();
	if (child < 0)
		return 0;
	if (!child) {
		setpgid(0, 0);
		alarm(PATIENCE);
		signal(SIGXFSZ, SIG_IGN);
		int worked = try_trick(number, &name), why = errno;
		if (worked < 0)
			_exit(2);
		char line[128];
		int length = snprintf(line, sizeof line, worked ? "trick %s worked\n" : "trick %s failed %d\n", name, why);
		_exit(write(2, line, length) != length);
	}
	waitpid(child, &status, 0);
	kill(-child, SIGKILL);
	return !(WIFEXITED(status) && WEXITSTATUS(status) == 2);
}

int main(int count, char **arguments)
{
	words = arguments;
	if (count > 1 && !strcmp(words[1], "--version"))
		return puts(VERSION) < 0;
	if (count > 1 && !strcmp(words[1], "--showconfig"))
		return puts(mark) < 0;
	for (int number = 0; tell(number); number++)
		;
	fprintf(stderr, "all tricks are done\n");
	return 0;
}
