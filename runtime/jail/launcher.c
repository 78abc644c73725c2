/* Puts a kernel into its jail: does the steps that its arguments name, one after the other, and becomes the kernel.
 *
 * Usage: launcher REPORT STRICT STEP... -- PROGRAM ARGUMENT...
 *
 * The steps are decided by plan.py, which says what each is for; this program only does them. A step that fails ends its
 * layer: the rest of that layer is left out, the report says so, and with STRICT 1 nothing is started. REPORT is a stream
 * socket; its lines are read by report.py. Standard output is the pipe to the keeper, which is told whom to end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LANDLOCK_CREATE 444 /* the system calls have these numbers on every architecture */
#define LANDLOCK_ADD 445
#define LANDLOCK_ENFORCE 446
#define PATH_BENEATH 1
#define SECUREBITS 0xe3 /* no capabilities for uid 0, no ambient ones, none kept; all of it locked */
#define LAYERS_MAX 16

static int report, strict;
static const char *base = "";     /* where the new root is put together */
static int ruleset = -1;          /* of Landlock */
static int in_pid_namespace;
static uid_t outer_uid;           /* the caller, as the user namespace around the jail knows it */
static gid_t outer_gid;
static const char *layer = "";
static const char *done[LAYERS_MAX]; /* the layers that are whole */
static int done_count, skipping;

static void tell(const char *format, ...)
{
	char line[PATH_MAX + 256];
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	if (length >= (int)sizeof line) {
		length = sizeof line - 1;
		line[length - 1] = '\n';
	}
	if (send(report, line, length, MSG_NOSIGNAL) < 0)
		_exit(1);
}

static long number(const char *text)
{
	return strtol(text, NULL, 0);
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t written = write(fd, text, strlen(text));
	int why = errno;
	close(fd);
	errno = why;
	return written < 0 ? -1 : 0;
}

/* ---- paths in the new root */

static const char *within(const char *path)
{
	static char found[PATH_MAX];
	if (snprintf(found, sizeof found, "%s%s", base, path) >= (int)sizeof found) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	return found;
}

/* Make the directories that lead to `path`, which is in the new root already. */
static int make_parents(const char *path)
{
	char part[PATH_MAX];
	for (const char *slash = strchr(path + strlen(base) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		memcpy(part, path, slash - path);
		part[slash - path] = 0;
		if (mkdir(part, 0755) && errno != EEXIST)
			return -1;
	}
	return 0;
}

static int make_directory(const char *path)
{
	return make_parents(path) || (mkdir(path, 0755) && errno != EEXIST) ? -1 : 0;
}

static int make_file(const char *path)
{
	if (make_parents(path))
		return -1;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0444);
	return fd < 0 ? -1 : close(fd);
}

/* What a mount must keep: an unprivileged user may not take these away from a mount of the host. */
static unsigned long kept_flags(const char *path)
{
	static const struct { unsigned long had, keep; } flags[] = {
		{ST_RDONLY, MS_RDONLY},	  {ST_NOSUID, MS_NOSUID},     {ST_NODEV, MS_NODEV},	    {ST_NOEXEC, MS_NOEXEC},
		{ST_NOATIME, MS_NOATIME}, {ST_NODIRATIME, MS_NODIRATIME}, {ST_RELATIME, MS_RELATIME},
	};
	struct statvfs found;
	unsigned long kept = 0;
	if (statvfs(path, &found) == 0)
		for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
			if (found.f_flag & flags[i].had)
				kept |= flags[i].keep;
	return kept;
}

/* ---- the steps */

static int do_rlimit(char **words)
{
	int which = number(words[0]);
	struct rlimit limit;
	rlim_t wanted = strtoull(words[1], NULL, 0);
	if (getrlimit(which, &limit))
		return -1;
	if (wanted > limit.rlim_max)
		wanted = limit.rlim_max;
	limit.rlim_cur = limit.rlim_max = wanted;
	return setrlimit(which, &limit);
}

/* Into the control group whose list of processes the descriptor is. */
static int do_join(char **words)
{
	return write(number(words[0]), "0", 1) == 1 ? 0 : -1;
}

/* No program that is executed from now on gains anything. */
static int do_nonewprivs(char **words)
{
	(void)words;
	for (int capability = 0; capability < 64; capability++)
		prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); /* an ordinary user may not, and has none to drop */
	prctl(PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0);
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int do_unshare(char **words)
{
	int flags = number(words[0]);
	outer_uid = geteuid();
	outer_gid = getegid();
	if (unshare(flags))
		return -1;
	in_pid_namespace = (flags & CLONE_NEWPID) != 0;
	return 0;
}

/* Into the namespace that the descriptor is. */
static int do_setns(char **words)
{
	return setns(number(words[0]), 0);
}

static int do_map(char **words)
{
	char line[64];
	write_file("/proc/self/setgroups", "deny");
	snprintf(line, sizeof line, "%s %u 1\n", words[0], outer_uid);
	if (write_file("/proc/self/uid_map", line))
		return -1;
	snprintf(line, sizeof line, "%s %u 1\n", words[1], outer_gid);
	return write_file("/proc/self/gid_map", line);
}

static int go_to(int directory)
{
	return fchdir(directory) || chroot(".") ? -1 : 0;
}

/* Have no mount of ours seen in other namespaces. After a chroot that is asked of the namespace's own root. */
static int make_private(void)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
		return 0;
	if (errno != EINVAL)
		return -1;
	int before = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	int failed = before < 0 || own < 0 || setns(own, CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	/* The root becomes a mount, which pivot_root needs; `..` leads to what is mounted over it. */
	return failed || go_to(before) || mount("/", "/", NULL, MS_BIND | MS_REC, NULL) || chdir("/..") || chroot(".") ? -1 : 0;
}

/* An empty root, at the directory that is named. */
static int do_root(char **words)
{
	if (make_private() ||
	    mount("jail", words[0], "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m,nr_inodes=4096"))
		return -1;
	base = words[0];
	return 0;
}

/* A file or a directory of the host at its own place: PATH ro|rw. */
static int do_bind(char **words)
{
	struct stat status;
	const char *place = within(words[0]);
	if (!place || stat(words[0], &status))
		return -1;
	unsigned long flags = MS_NOSUID | (words[1][1] == 'o' ? MS_RDONLY : 0) | kept_flags(words[0]);
	if (S_ISDIR(status.st_mode) || S_ISREG(status.st_mode))
		flags |= MS_NODEV;
	if ((S_ISDIR(status.st_mode) ? make_directory(place) : make_file(place)) ||
	    mount(words[0], place, NULL, MS_BIND, NULL))
		return -1;
	return mount(NULL, place, NULL, MS_REMOUNT | MS_BIND | flags, NULL);
}

static int do_tmpfs(char **words)
{
	const char *place = within(words[0]);
	if (!place || make_directory(place))
		return -1;
	return mount("jail", place, "tmpfs", MS_NOSUID | MS_NODEV, words[1]);
}

/* Terminals of its own. */
static int do_devpts(char **words)
{
	(void)words;
	const char *place = within("/dev/pts");
	if (!place || make_directory(place) ||
	    mount("jail", place, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0600"))
		return -1;
	place = within("/dev/ptmx");
	return place ? symlink("pts/ptmx", place) : -1;
}

static int do_pivot(char **words)
{
	(void)words;
	if (chdir(base) || mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) ||
	    syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		return -1;
	base = "";
	return 0;
}

static int do_user(char **words)
{
	uid_t uid = number(words[0]);
	gid_t gid = number(words[1]);
	return syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, gid, gid, gid) ||
	       syscall(SYS_setresuid, uid, uid, uid) ? -1 : 0;
}

static int do_nocaps(char **words)
{
	(void)words;
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct none[2] = {{0}};
	return syscall(SYS_capset, &header, none);
}

/* What Landlock is to refuse: FILES NETWORK SCOPES, bits of each, and the size of the attributes. */
static int do_landlock(char **words)
{
	uint64_t attributes[3] = {number(words[0]), number(words[1]), number(words[2])};
	ruleset = syscall(LANDLOCK_CREATE, attributes, number(words[3]), 0);
	return ruleset < 0 ? -1 : fcntl(ruleset, F_SETFD, FD_CLOEXEC);
}

/* What it lets through: PATH BITS. What is not there needs no rule. */
static int do_allow(char **words)
{
	struct { uint64_t access; int32_t parent; } __attribute__((packed)) rule = {number(words[1]), -1};
	rule.parent = open(words[0], O_PATH | O_CLOEXEC);
	if (rule.parent < 0)
		return errno == ENOENT ? 0 : -1;
	long failed = syscall(LANDLOCK_ADD, ruleset, PATH_BENEATH, &rule, 0);
	int why = errno;
	close(rule.parent);
	errno = why;
	return failed;
}

static int do_enforce(char **words)
{
	(void)words;
	return syscall(LANDLOCK_ENFORCE, ruleset, 0);
}

/* Send the caller a descriptor, with a word that says which. */
static int send_descriptor(const char *line, int fd)
{
	union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {{0}};
	struct iovec vector = {(void *)line, strlen(line)};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	*header = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	ssize_t sent = sendmsg(report, &message, MSG_NOSIGNAL);
	close(fd);
	return sent < 0 ? -1 : 0;
}

/* The filter of system calls that the descriptor holds; with 1, the caller hears of those that are refused. Where the
 * host cannot have that, they are refused all the same. */
static int do_seccomp(char **words)
{
	static struct sock_filter code[BPF_MAXINSNS];
	ssize_t length = pread(number(words[0]), code, sizeof code, 0);
	if (length <= 0)
		return -1;
	struct sock_fprog program = {length / sizeof *code, code};
	if (number(words[1])) {
		int heard = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
		if (heard >= 0)
			return send_descriptor("heard\n", heard);
	}
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/* Give the caller a directory as it is in here. */
static int do_hand(char **words)
{
	int fd = open(words[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -1 : send_descriptor("hand\n", fd);
}

/* Close a descriptor that only a step needs. */
static int do_close(char **words)
{
	return close(number(words[0]));
}

static const struct {
	const char *name;
	int words;
	int (*act)(char **);
} steps[] = {
	{"rlimit", 2, do_rlimit},   {"nonewprivs", 0, do_nonewprivs}, {"unshare", 1, do_unshare}, {"map", 2, do_map},
	{"root", 1, do_root},	    {"bind", 2, do_bind},	      {"tmpfs", 2, do_tmpfs},	  {"devpts", 0, do_devpts},
	{"pivot", 0, do_pivot},	    {"user", 2, do_user},	      {"nocaps", 0, do_nocaps},	  {"landlock", 4, do_landlock},
	{"allow", 2, do_allow},	    {"enforce", 0, do_enforce},	      {"seccomp", 2, do_seccomp}, {"hand", 1, do_hand},
	{"close", 1, do_close},	    {"join", 1, do_join},	      {"setns", 1, do_setns},
};

static int is_done(const char *name)
{
	for (int i = 0; i < done_count; i++)
		if (!strcmp(done[i], name))
			return 1;
	return 0;
}

static void finish_layer(void)
{
	if (*layer && !skipping && done_count < LAYERS_MAX) {
		done[done_count++] = layer;
		tell("ok %s\n", layer);
	}
}

static void fail_layer(const char *step, const char *word)
{
	tell("no %s %d %s %s\n", layer, errno, step, word);
	skipping = 1;
	if (strict || !*layer)
		_exit(1);
}

static void begin_layer(const char *name, const char *needed)
{
	finish_layer();
	layer = name;
	skipping = 0;
	if (*needed && !is_done(needed)) {
		errno = 0;
		fail_layer("needs", needed);
	}
}

/* Do one step; how many words it took. */
static int step(char **words)
{
	if (!strcmp(words[0], "layer")) {
		begin_layer(words[1], words[2]);
		return 3;
	}
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		if (strcmp(words[0], steps[i].name))
			continue;
		if (!skipping && steps[i].act(words + 1))
			fail_layer(words[0], steps[i].words ? words[1] : "");
		return 1 + steps[i].words;
	}
	errno = EINVAL;
	layer = "";
	fail_layer("unknown", words[0]);
	return 1;
}

/* ---- processes */

static void become(char **command)
{
	setsid(); /* no terminal of the caller's */
	dup2(2, 1);
	execv(command[0], command);
	tell("exec %d\n", errno);
	_exit(127);
}

/* Process 1 of the jail: with it all others go. Those whose parent ends become its children, and are reaped. */
static void be_first(void)
{
	signal(SIGCHLD, SIG_IGN);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	setsid();
	if (syscall(SYS_close_range, 0, ~0u, 0))
		for (int fd = 0; fd < 65536; fd++)
			close(fd);
	for (;;)
		pause();
}

/* A process that is not ours but our parent's. */
static pid_t spawn_sibling(void)
{
	pid_t pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0) {
		tell("fork %d\n", errno);
		_exit(1);
	}
	return pid;
}

static void start(char **command)
{
	if (!in_pid_namespace) {
		dprintf(1, "add %d\n", getpid());
		tell("pid %d 0\n", getpid());
		become(command);
	}
	pid_t first = spawn_sibling();
	if (!first)
		be_first();
	dprintf(1, "add %d\n", first);
	tell("first %d\n", first);
	pid_t kernel = spawn_sibling();
	if (!kernel)
		become(command);
	dprintf(1, "add %d\n", kernel);
	tell("pid %d %d\n", kernel, first);
	_exit(0);
}

int main(int count, char **words)
{
	(void)count;
	report = number(words[1]);
	strict = number(words[2]);
	fcntl(report, F_SETFD, FD_CLOEXEC);
	for (words += 3; strcmp(*words, "--");)
		words += step(words);
	finish_layer();
	start(words + 1);
}
