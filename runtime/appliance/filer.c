/*
 * The filer: init, agent and only program of an appliance guest; and a visitor in others.
 *
 * It mounts the filesystems of disks where the host asks for that, and hands out what is in them: FUSE requests come
 * from the job's input in the control filesystem (runtime/machine/control.py), FUSE answers go to its output. No libraries but
 * libc, linked statically. The host is trusted here (it owns this guest); the filesystems are not, and the host
 * does not trust us.
 *
 * Requests are FUSE 7.38 (linux/fuse.h), one after the other, each framed by its header's length. Differences:
 * nodes are numbered from 2, and their first one comes from MOUNT; a READ without a handle needs no OPEN.
 * MOUNT (opcode 65537): u32 flags (1: writable), then device, type and options, each ending with a NUL. Its answer
 * is a u32 errno, and then the root's fuse_entry_out, or what the kernel had to say.
 * PACK (opcode 65538): the last request. After its answer, and the end of the input, what follows is an archive of the
 * node and all below it (packer.c); what could not be read goes to the job's errors, and its status is 1 then.
 *
 * A visitor (called with the number of its job) hands out what the guest it finds itself in has at /, with all that is
 * mounted there: the answer to MOUNT, whatever it asks for, is that root. The guest's own programs work on it, too.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define AGENT "/run/umlfs"         /* as in runtime/guest */
#define MOUNT 65537
#define MOUNT_WRITABLE 1
#define PACK 65538
#define CONTENTS_MAX (1 << 20)
#define REQUEST_MAX (CONTENTS_MAX + 128 * 1024)
#define INPUT_MAX (REQUEST_MAX + 65536)
#define BATCH (256 * 1024)         /* answers are gathered up to so many bytes while requests are at hand */
#define OUTPUT_MAX (BATCH + CONTENTS_MAX + 4096)
#define NODE_FDS 16384             /* nodes beyond these hold a file handle, not a descriptor */
#define VISITOR_FDS 512            /* nodes of a visitor beyond these hold a name: each descriptor takes the guest 3 KiB */
#define HASH_SIZE 65536
#define READERS 128                /* files kept open for reads without a handle */
#define SUBVOLUMES 4096            /* devices (subvolumes of btrfs) whose inodes are numbered apart for sure */
#define SUBVOLUME_SHIFT 44
#define SECBIT_NO_SETUID_FIXUP 4   /* linux/securebits.h: another fsuid keeps the capabilities */
#define OPEN_FLAGS (O_ACCMODE | O_TRUNC | O_EXCL | O_SYNC | O_DSYNC)

struct node {
    uint64_t lookups;              /* 0: the slot is free */
    dev_t device;
    ino_t inode;
    uint32_t next;                 /* in its hash chain, or of free slots */
    uint32_t generation;
    int fd;                        /* O_PATH, or -1 */
    int mount;                     /* a descriptor of its filesystem's root */
    uint8_t pinned;                /* the root of a mount: stays */
    struct file_handle *handle;    /* where fd is -1 */
    char *name;                    /* or that, in the directory `parent`, which it holds a lookup of */
    uint32_t parent;
};

static struct node *nodes;
static uint32_t node_count = 2, node_room, free_node;
static uint32_t chains[HASH_SIZE];
static int node_fds;

static int *handles;               /* descriptors by FUSE handle; -1 is free */
static uint32_t handle_room;

static struct reader { uint32_t node; int fd; } readers[READERS];
static unsigned reader_next;

static int mounts;
static int input, output;
static int visiting;
static int packing = -1;           /* the directory to be packed when the requests have ended */

int pack(int root, int output, int errors);

/* Two workers take turns: while one does what it read, the other's read waits at the host, so that the next request
 * is here as soon as it is made. What is under `turn`: reading, and `rest`. Under `work`: all else that is not a
 * worker's own, so that only the waits overlap. Work is taken before the turn ends: requests are done in order. */
#define WORKERS 2
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER, work = PTHREAD_MUTEX_INITIALIZER;
static char *rest;                 /* the beginning of a request whose end was not read yet */
static size_t rest_size;
static int ended, broken;

static __thread char *in, *out;
static __thread size_t in_start, in_end, out_end;
static __thread struct fuse_in_header head;
static __thread char *body;
static __thread size_t body_size;

/* Small things ------------------------------------------------------------------------------------------------- */

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, text, strlen(text)) < 0)
            perror(path);
        close(fd);
    }
}

static void fail(const char *what)
{
    char text[512];
    snprintf(text, sizeof text, "%s: %s\n", what, strerror(errno));
    write_file("/control/report", text);
    fputs(text, stderr);
    for (;;)
        pause();
}

static int flush_output(void)
{
    size_t done = 0;
    while (done < out_end) {
        ssize_t count = write(output, out + done, out_end - done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -1;
        done += count;
    }
    out_end = 0;
    return 0;
}

/* Where an answer's contents go: behind the header to come. */
static char *space(void)
{
    return out + out_end + sizeof(struct fuse_out_header);
}

/* The answer whose `size` bytes of contents are in space() already. */
static void answer(size_t size)
{
    struct fuse_out_header header = { sizeof header + size, 0, head.unique };
    memcpy(out + out_end, &header, sizeof header);
    out_end += header.len;
}

static void answer_error(int error)
{
    struct fuse_out_header header = { sizeof header, -error, head.unique };
    memcpy(out + out_end, &header, sizeof header);
    out_end += header.len;
}

/* An answer without contents, by a system call's result. */
static void answer_result(long result)
{
    answer_error(result < 0 ? errno : 0);
}

static void answer_data(const void *data, size_t size)
{
    memcpy(space(), data, size);
    answer(size);
}

/* The argument at `offset`: NULL if the request is too short for it. */
static void *fixed(size_t size)
{
    return body_size < size ? NULL : body;
}

static const char *string(size_t offset)
{
    return offset < body_size && memchr(body + offset, 0, body_size - offset) ? body + offset : NULL;
}

static const char *name_at(size_t offset)
{
    const char *name = string(offset);
    if (!name || !*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return NULL;
    return name;
}

/* Nodes -------------------------------------------------------------------------------------------------------- */

static uint32_t *chain_of(dev_t device, ino_t inode)
{
    return &chains[(inode * 2654435761u ^ device) % HASH_SIZE];
}

static struct node *node_of(uint64_t number)
{
    if (number >= node_count || number < 2 || !nodes[number].lookups) {
        errno = ESTALE;
        return NULL;
    }
    return &nodes[number];
}

static void done_with(int fd, int temporary)
{
    if (temporary && fd >= 0) {
        int error = errno;
        close(fd);
        errno = error;
    }
}

static int node_fd(uint64_t number, int *temporary);

/* Open the node by its name. ESTALE if that is another's now. */
static int open_by_name(const struct node *node)
{
    struct stat status;
    int temporary, directory = node_fd(node->parent, &temporary);
    int fd = directory < 0 ? -1 : openat(directory, node->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    done_with(directory, temporary);
    if (fd >= 0 && (fstat(fd, &status) < 0 || status.st_dev != node->device || status.st_ino != node->inode)) {
        close(fd);
        errno = ESTALE;
        return -1;
    }
    return fd;
}

/* The node's descriptor (O_PATH); *temporary if it is to be closed. -1 with errno. */
static int node_fd(uint64_t number, int *temporary)
{
    struct node *node = node_of(number);
    *temporary = 0;
    if (!node)
        return -1;
    if (node->fd >= 0)
        return node->fd;
    *temporary = 1;
    if (node->name)
        return open_by_name(node);
    return open_by_handle_at(node->mount, node->handle, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

static uint32_t new_node(void)
{
    uint32_t number = free_node;
    if (number) {
        free_node = nodes[number].next;
        return number;
    }
    if (node_count >= node_room) {
        uint32_t room = node_room ? node_room * 2 : 1024;
        struct node *grown = realloc(nodes, room * sizeof *nodes);
        if (!grown)
            return 0;
        memset(grown + node_room, 0, (room - node_room) * sizeof *nodes);
        nodes = grown;
        node_room = room;
    }
    return node_count++;
}

static void drop_readers(uint32_t number)
{
    for (unsigned i = 0; i < READERS; i++)
        if (readers[i].node && (!number || readers[i].node == number)) {
            close(readers[i].fd);
            readers[i].node = 0;
        }
}

static void forget(uint64_t number, uint64_t count);

static void drop_node(uint32_t number)
{
    struct node *node = &nodes[number];
    uint32_t parent = node->name ? node->parent : 0;
    uint32_t *link = chain_of(node->device, node->inode);
    while (*link != number)
        link = &nodes[*link].next;
    *link = node->next;
    if (node->fd >= 0) {
        close(node->fd);
        node_fds--;
    }
    free(node->handle);
    free(node->name);
    drop_readers(number);
    *node = (struct node){ .generation = node->generation + 1, .next = free_node, .fd = -1 };
    free_node = number;
    if (parent)
        forget(parent, 1);
}

static void forget(uint64_t number, uint64_t count)
{
    struct node *node = node_of(number);
    if (!node || node->pinned)
        return;
    node->lookups -= count < node->lookups ? count : node->lookups;
    if (!node->lookups)
        drop_node(number);
}

/* Hold the node by its name in the directory that the request is about; -1 with errno. */
static int hold_name(struct node *node, const char *name)
{
    node->name = strdup(name);
    if (!node->name)
        return -1;
    node->fd = -1;
    node->parent = head.nodeid;
    nodes[node->parent].lookups++;
    return 0;
}

/* Find `name` in the directory `fd` as the node's descriptor or its handle; -1 with errno. */
static int hold(struct node *node, int fd, const char *name)
{
    /* In a guest that lives, not every filesystem has handles. */
    if (visiting && node_fds >= VISITOR_FDS)
        return hold_name(node, name);
    if (node_fds >= NODE_FDS) {
        struct file_handle *handle = malloc(sizeof *handle + MAX_HANDLE_SZ);
        int id;
        if (handle) {
            handle->handle_bytes = MAX_HANDLE_SZ;
            if (name_to_handle_at(fd, name, handle, &id, 0) == 0) {
                node->fd = -1;
                node->handle = handle;
                return 0;
            }
            free(handle);
        }
    }
    node->fd = openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    node_fds += node->fd >= 0;
    return node->fd < 0 ? -1 : 0;
}

static uint32_t known_node(const struct stat *status)
{
    uint32_t number = *chain_of(status->st_dev, status->st_ino);
    while (number && (nodes[number].device != status->st_dev || nodes[number].inode != status->st_ino))
        number = nodes[number].next;
    return number;
}

/* Count a lookup of `name` in the directory `fd` of filesystem `mount`: the node's number, 0 with errno. */
static uint32_t find(int fd, int mount, const char *name, struct stat *status)
{
    if (fstatat(fd, name, status, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    uint32_t number = known_node(status);
    if (number) {
        nodes[number].lookups++;
        return number;
    }
    number = new_node();
    if (!number) {
        errno = ENOMEM;
        return 0;
    }
    struct node *node = &nodes[number];
    node->handle = NULL;
    node->name = NULL;
    if (hold(node, fd, name) < 0) {
        node->next = free_node;
        free_node = number;
        return 0;
    }
    uint32_t *chain = chain_of(status->st_dev, status->st_ino);
    node->device = status->st_dev;
    node->inode = status->st_ino;
    node->mount = mount;
    node->lookups = 1;
    node->next = *chain;
    *chain = number;
    return number;
}

/* Attributes --------------------------------------------------------------------------------------------------- */

/* The inode's number: each subvolume of a btrfs numbers from 256, and is a device of its own. */
static uint64_t number_of(const struct stat *status)
{
    static struct { dev_t device; uint64_t above; } seen[SUBVOLUMES];
    static uint64_t count;
    uint64_t at = (status->st_dev * 0x9e3779b97f4a7c15u >> 32) % SUBVOLUMES;
    for (unsigned tries = 0; tries < SUBVOLUMES; tries++, at = (at + 1) % SUBVOLUMES) {
        if (!seen[at].device) {
            seen[at].device = status->st_dev;
            seen[at].above = count++ << SUBVOLUME_SHIFT;
        }
        if (seen[at].device == status->st_dev)
            return status->st_ino + seen[at].above;
    }
    return status->st_ino + ((uint64_t)status->st_dev << SUBVOLUME_SHIFT);
}

static void fill_attr(struct fuse_attr *attr, const struct stat *status)
{
    unsigned major = major(status->st_rdev), minor = minor(status->st_rdev);
    *attr = (struct fuse_attr){
        .ino = number_of(status), .size = status->st_size, .blocks = status->st_blocks,
        .atime = status->st_atim.tv_sec, .atimensec = status->st_atim.tv_nsec,
        .mtime = status->st_mtim.tv_sec, .mtimensec = status->st_mtim.tv_nsec,
        .ctime = status->st_ctim.tv_sec, .ctimensec = status->st_ctim.tv_nsec,
        .mode = status->st_mode, .nlink = status->st_nlink, .uid = status->st_uid, .gid = status->st_gid,
        .rdev = (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12, .blksize = status->st_blksize,
    };
}

static void fill_entry(struct fuse_entry_out *entry, uint32_t number, const struct stat *status)
{
    memset(entry, 0, sizeof *entry);
    entry->nodeid = number;
    entry->generation = nodes[number].generation;
    fill_attr(&entry->attr, status);
}

static void answer_attr(int fd)
{
    struct stat status;
    struct fuse_attr_out *attr = (void *)space();
    if (fstatat(fd, "", &status, AT_EMPTY_PATH) < 0) {
        answer_error(errno);
        return;
    }
    memset(attr, 0, sizeof *attr);
    fill_attr(&attr->attr, &status);
    answer(sizeof *attr);
}

static void answer_entry(int fd, const char *name)
{
    struct stat status;
    uint32_t number = find(fd, nodes[head.nodeid].mount, name, &status);
    if (!number) {
        answer_error(errno);
        return;
    }
    fill_entry((void *)space(), number, &status);
    answer(sizeof(struct fuse_entry_out));
}

/* Where procfs shows descriptor `fd`: for calls that take nothing but a path. */
static const char *path_of(int fd)
{
    static __thread char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

static int kill_set_id(int fd)
{
    struct stat status;
    if (fstatat(fd, "", &status, AT_EMPTY_PATH) < 0)
        return -1;
    mode_t mode = status.st_mode & 07777 & ~S_ISUID;
    if (mode & S_IXGRP)
        mode &= ~S_ISGID;
    if (!S_ISREG(status.st_mode))
        return 0;
    removexattr(path_of(fd), "security.capability");
    return mode == (status.st_mode & 07777) ? 0 : chmod(path_of(fd), mode);
}

static struct timespec time_of(unsigned valid, unsigned set, unsigned now, uint64_t seconds, uint32_t nanoseconds)
{
    struct timespec time = { seconds, nanoseconds };
    if (!(valid & set))
        time.tv_nsec = UTIME_OMIT;
    else if (valid & now)
        time.tv_nsec = UTIME_NOW;
    return time;
}

static int change(int fd, const struct fuse_setattr_in *wanted)
{
    unsigned valid = wanted->valid;
    if (valid & FATTR_KILL_SUIDGID && kill_set_id(fd) < 0)
        return -1;
    if (valid & (FATTR_UID | FATTR_GID)) {
        uid_t uid = valid & FATTR_UID ? wanted->uid : (uid_t)-1;
        gid_t gid = valid & FATTR_GID ? wanted->gid : (gid_t)-1;
        if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0)
            return -1;
    }
    if (valid & FATTR_MODE && chmod(path_of(fd), wanted->mode & 07777) < 0)
        return -1;
    if (valid & FATTR_SIZE && truncate(path_of(fd), wanted->size) < 0)
        return -1;
    if (valid & (FATTR_ATIME | FATTR_MTIME)) {
        struct timespec times[2] = {
            time_of(valid, FATTR_ATIME, FATTR_ATIME_NOW, wanted->atime, wanted->atimensec),
            time_of(valid, FATTR_MTIME, FATTR_MTIME_NOW, wanted->mtime, wanted->mtimensec),
        };
        return utimensat(fd, "", times, AT_EMPTY_PATH);
    }
    return 0;
}

static void do_setattr(int fd)
{
    struct fuse_setattr_in *wanted = fixed(sizeof *wanted);
    if (!wanted)
        answer_error(EINVAL);
    else if (change(fd, wanted) < 0)
        answer_error(errno);
    else
        answer_attr(fd);
}

static void do_statfs(int fd)
{
    struct statfs state;
    struct fuse_statfs_out *found = (void *)space();
    if (fstatfs(fd, &state) < 0) {
        answer_error(errno);
        return;
    }
    memset(found, 0, sizeof *found);
    found->st = (struct fuse_kstatfs){
        .blocks = state.f_blocks, .bfree = state.f_bfree, .bavail = state.f_bavail, .files = state.f_files,
        .ffree = state.f_ffree, .bsize = state.f_bsize, .namelen = state.f_namelen,
        .frsize = state.f_frsize ? state.f_frsize : state.f_bsize,
    };
    answer(sizeof *found);
}

static void do_getxattr(int fd, int list)
{
    struct fuse_getxattr_in *wanted = fixed(sizeof *wanted);
    const char *name = list ? "" : string(sizeof *wanted);
    if (!wanted || !name || wanted->size > XATTR_SIZE_MAX) {
        answer_error(EINVAL);
        return;
    }
    const char *path = path_of(fd);
    void *value = wanted->size ? space() : NULL;
    ssize_t size = list ? listxattr(path, value, wanted->size) : getxattr(path, name, value, wanted->size);
    if (size < 0) {
        answer_error(errno);
    } else if (wanted->size) {
        answer(size);
    } else {
        struct fuse_getxattr_out found = { .size = size };
        answer_data(&found, sizeof found);
    }
}

static void do_setxattr(int fd)
{
    struct fuse_setxattr_in *wanted = fixed(sizeof *wanted);
    const char *name = wanted ? string(sizeof *wanted) : NULL;
    size_t start = name ? sizeof *wanted + strlen(name) + 1 : 0;
    if (!name || body_size - start != wanted->size)
        answer_error(EINVAL);
    else
        answer_result(setxattr(path_of(fd), name, body + start, wanted->size, wanted->flags));
}

/* Names -------------------------------------------------------------------------------------------------------- */

/* Be the caller for what is made: it belongs to them. Capabilities stay. */
static void as_caller(int yes)
{
    setfsgid(yes ? head.gid : 0);
    setfsuid(yes ? head.uid : 0);
}

static void answer_made(int result, int fd, const char *name)
{
    int error = errno;
    as_caller(0);
    if (result < 0)
        answer_error(error);
    else
        answer_entry(fd, name);
}

static void do_mknod(int fd)
{
    struct fuse_mknod_in *wanted = fixed(sizeof *wanted);
    const char *name = name_at(sizeof *wanted);
    if (!wanted || !name || S_ISDIR(wanted->mode)) {
        answer_error(EINVAL);
        return;
    }
    dev_t device = makedev(wanted->rdev >> 8 & 0xfff, (wanted->rdev & 0xff) | (wanted->rdev >> 12 & 0xfff00));
    as_caller(1);
    answer_made(mknodat(fd, name, wanted->mode, device), fd, name);
}

static void do_mkdir(int fd)
{
    struct fuse_mkdir_in *wanted = fixed(sizeof *wanted);
    const char *name = name_at(sizeof *wanted);
    if (!wanted || !name) {
        answer_error(EINVAL);
        return;
    }
    as_caller(1);
    answer_made(mkdirat(fd, name, wanted->mode), fd, name);
}

static void do_symlink(int fd)
{
    const char *name = name_at(0);
    const char *target = name ? string(strlen(name) + 1) : NULL;
    if (!target) {
        answer_error(EINVAL);
        return;
    }
    as_caller(1);
    answer_made(symlinkat(target, fd, name), fd, name);
}

static void do_readlink(int fd)
{
    ssize_t size = readlinkat(fd, "", space(), PATH_MAX);
    if (size < 0)
        answer_error(errno == ENOENT ? EINVAL : errno);
    else
        answer(size);
}

static void do_link(int fd)
{
    struct fuse_link_in *wanted = fixed(sizeof *wanted);
    const char *name = name_at(sizeof *wanted);
    if (!wanted || !name) {
        answer_error(EINVAL);
        return;
    }
    int temporary, old = node_fd(wanted->oldnodeid, &temporary);
    if (old < 0 || linkat(old, "", fd, name, AT_EMPTY_PATH) < 0)
        answer_error(errno);
    else
        answer_entry(fd, name);
    done_with(old, temporary);
}

static void do_unlink(int fd, int flags)
{
    const char *name = name_at(0);
    if (!name)
        answer_error(EINVAL);
    else
        answer_result(unlinkat(fd, name, flags));
}

static void do_rename(int fd)
{
    size_t size = head.opcode == FUSE_RENAME2 ? sizeof(struct fuse_rename2_in) : sizeof(struct fuse_rename_in);
    struct fuse_rename2_in *wanted = fixed(size);
    const char *name = name_at(size);
    const char *new_name = name ? name_at(size + strlen(name) + 1) : NULL;
    if (!wanted || !new_name) {
        answer_error(EINVAL);
        return;
    }
    int temporary, to = node_fd(wanted->newdir, &temporary);
    unsigned flags = head.opcode == FUSE_RENAME2 ? wanted->flags : 0;
    answer_result(to < 0 ? -1 : syscall(SYS_renameat2, fd, name, to, new_name, flags));
    done_with(to, temporary);
}

/* Files -------------------------------------------------------------------------------------------------------- */

static int file_of(uint64_t handle)
{
    if (!handle || handle >= handle_room || handles[handle] < 0) {
        errno = EBADF;
        return -1;
    }
    return handles[handle];
}

/* A handle for `fd`; 0 with errno, and fd is closed. */
static uint32_t new_handle(int fd)
{
    static uint32_t next;
    for (uint32_t tried = 0; tried < handle_room; tried++) {
        next = next + 1 < handle_room ? next + 1 : 1;
        if (handles[next] < 0) {
            handles[next] = fd;
            return next;
        }
    }
    uint32_t room = handle_room ? handle_room * 2 : 64;
    int *grown = realloc(handles, room * sizeof *handles);
    if (!grown) {
        close(fd);
        errno = ENOMEM;
        return 0;
    }
    for (uint32_t i = handle_room; i < room; i++)
        grown[i] = -1;
    next = handle_room ? handle_room : 1;
    handles = grown;
    handle_room = room;
    handles[next] = fd;
    return next;
}

/* Open the node behind `fd` anew. What is no file or directory is not opened: it may be a device or block. */
static int reopen(int fd, int flags, mode_t type)
{
    struct stat status;
    if (fstatat(fd, "", &status, AT_EMPTY_PATH) < 0)
        return -1;
    if ((status.st_mode & S_IFMT) != type) {
        errno = type == S_IFDIR ? ENOTDIR : S_ISDIR(status.st_mode) ? EISDIR : S_ISLNK(status.st_mode) ? ELOOP : ENXIO;
        return -1;
    }
    return open(path_of(fd), flags | O_NONBLOCK | O_CLOEXEC);
}

/* The flags to open with: a writer may have to read what it changes in part, and appending is the host's concern. */
static int usual(uint32_t flags)
{
    int wanted = flags & OPEN_FLAGS;
    return (wanted & O_ACCMODE) == O_WRONLY ? (wanted & ~O_ACCMODE) | O_RDWR : wanted;
}

static void answer_opened(int fd)
{
    struct fuse_open_out opened = { 0 };
    if (fd >= 0)
        opened.fh = new_handle(fd);
    if (opened.fh)
        answer_data(&opened, sizeof opened);
    else
        answer_error(errno);
}

static void do_open(int fd)
{
    struct fuse_open_in *wanted = fixed(sizeof *wanted);
    if (!wanted)
        answer_error(EINVAL);
    else
        answer_opened(reopen(fd, usual(wanted->flags) & ~O_EXCL, S_IFREG));
}

static void do_create(int fd)
{
    struct fuse_create_in *wanted = fixed(sizeof *wanted);
    const char *name = name_at(sizeof *wanted);
    if (!wanted || !name) {
        answer_error(EINVAL);
        return;
    }
    struct stat status;
    if (fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(status.st_mode)) {
        answer_error(S_ISLNK(status.st_mode) && !(wanted->flags & O_EXCL) ? ELOOP : EEXIST);
        return;
    }
    as_caller(1);
    int flags = usual(wanted->flags) | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    int made = openat(fd, name, flags, wanted->mode & 07777), error = errno;
    as_caller(0);
    if (made < 0) {
        answer_error(error);
        return;
    }
    uint32_t number = find(fd, nodes[head.nodeid].mount, name, &status);
    struct fuse_open_out opened = { .fh = new_handle(made) };
    if (!number || !opened.fh) {
        answer_error(errno);
        return;
    }
    fill_entry((void *)space(), number, &status);
    memcpy(space() + sizeof(struct fuse_entry_out), &opened, sizeof opened);
    answer(sizeof(struct fuse_entry_out) + sizeof opened);
}

/* A descriptor to read node `number` without a handle: one of a few that are kept. */
static int reader(uint32_t number, int fd)
{
    for (unsigned i = 0; i < READERS; i++)
        if (readers[i].node == number)
            return readers[i].fd;
    int opened = reopen(fd, O_RDONLY | O_NOATIME, S_IFREG);
    if (opened < 0)
        return -1;
    struct reader *slot = &readers[reader_next++ % READERS];
    if (slot->node)
        close(slot->fd);
    *slot = (struct reader){ number, opened };
    return opened;
}

static void do_read(int fd)
{
    struct fuse_read_in *wanted = fixed(sizeof *wanted);
    if (!wanted || wanted->size > CONTENTS_MAX) {
        answer_error(EINVAL);
        return;
    }
    int file = wanted->fh ? file_of(wanted->fh) : reader(head.nodeid, fd);
    size_t done = 0;
    while (file >= 0 && done < wanted->size) {
        ssize_t count = pread(file, space() + done, wanted->size - done, wanted->offset + done);
        if (count < 0 && !done)
            file = -1;
        if (count <= 0)
            break;
        done += count;
    }
    if (file < 0)
        answer_error(errno);
    else
        answer(done);
}

static void do_write(void)
{
    struct fuse_write_in *wanted = fixed(sizeof *wanted);
    if (!wanted || body_size - sizeof *wanted != wanted->size) {
        answer_error(EINVAL);
        return;
    }
    int file = file_of(wanted->fh);
    if (file < 0 || (wanted->write_flags & FUSE_WRITE_KILL_SUIDGID && kill_set_id(file) < 0)) {
        answer_error(errno);
        return;
    }
    ssize_t count = pwrite(file, body + sizeof *wanted, wanted->size, wanted->offset);
    struct fuse_write_out written = { .size = count < 0 ? 0 : count };
    if (count < 0)
        answer_error(errno);
    else
        answer_data(&written, sizeof written);
}

static void do_release(void)
{
    struct fuse_release_in *wanted = fixed(sizeof *wanted);
    int fd = wanted ? file_of(wanted->fh) : -1;
    if (fd < 0) {
        answer_error(EBADF);
        return;
    }
    close(fd);
    handles[wanted->fh] = -1;
    answer_error(0);
}

static void do_fsync(void)
{
    struct fuse_fsync_in *wanted = fixed(sizeof *wanted);
    int fd = wanted ? file_of(wanted->fh) : -1;
    if (fd < 0)
        answer_error(EBADF);
    else
        answer_result(wanted->fsync_flags & 1 ? fdatasync(fd) : fsync(fd));
}

static void do_fallocate(void)
{
    struct fuse_fallocate_in *wanted = fixed(sizeof *wanted);
    int fd = wanted ? file_of(wanted->fh) : -1;
    if (fd < 0)
        answer_error(EBADF);
    else
        answer_result(fallocate(fd, wanted->mode, wanted->offset, wanted->length));
}

static void do_lseek(int fd)
{
    struct fuse_lseek_in *wanted = fixed(sizeof *wanted);
    int file = !wanted ? -1 : wanted->fh ? file_of(wanted->fh) : reader(head.nodeid, fd);
    struct fuse_lseek_out found = { 0 };
    off_t offset = file < 0 ? -1 : lseek(file, wanted->offset, wanted->whence);
    found.offset = offset;
    if (offset < 0)
        answer_error(errno);
    else
        answer_data(&found, sizeof found);
}

static void do_copy_file_range(void)
{
    struct fuse_copy_file_range_in *wanted = fixed(sizeof *wanted);
    int from = wanted ? file_of(wanted->fh_in) : -1, to = wanted ? file_of(wanted->fh_out) : -1;
    if (from < 0 || to < 0) {
        answer_error(EBADF);
        return;
    }
    loff_t at = wanted->off_in, out_at = wanted->off_out;
    ssize_t count = copy_file_range(from, &at, to, &out_at, wanted->len, 0);
    struct fuse_write_out copied = { .size = count < 0 ? 0 : count };
    if (count < 0)
        answer_error(errno);
    else
        answer_data(&copied, sizeof copied);
}

/* Directories -------------------------------------------------------------------------------------------------- */

/* Add one entry at `at`, of `room` bytes; how many it took, 0 if there was no room. */
static size_t add_entry(char *at, size_t room, int fd, const struct dirent64 *found, int plus)
{
    size_t length = strlen(found->d_name), begin = plus ? sizeof(struct fuse_entry_out) : 0;
    size_t size = begin + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length);
    if (size > room)
        return 0;
    memset(at, 0, size);
    if (plus && strcmp(found->d_name, ".") && strcmp(found->d_name, "..")) {
        struct stat status;
        uint32_t number = find(fd, nodes[head.nodeid].mount, found->d_name, &status);
        if (number)
            fill_entry((void *)at, number, &status);
    }
    struct fuse_dirent entry = { found->d_ino, found->d_off, length, found->d_type };
    memcpy(at + begin, &entry, FUSE_NAME_OFFSET);
    memcpy(at + begin + FUSE_NAME_OFFSET, found->d_name, length);
    return size;
}

static void do_readdir(int node, int plus)
{
    static char buffer[64 * 1024] __attribute__((aligned(16)));
    struct fuse_read_in *wanted = fixed(sizeof *wanted);
    int own = wanted && !wanted->fh;
    int fd = !wanted ? -1 : own ? reopen(node, O_RDONLY | O_DIRECTORY, S_IFDIR) : file_of(wanted->fh);
    size_t size = 0, room = wanted && wanted->size < CONTENTS_MAX ? wanted->size : CONTENTS_MAX;
    if (fd < 0 || lseek(fd, wanted->offset, SEEK_SET) < 0) {
        answer_error(errno);
        done_with(fd, own);
        return;
    }
    for (;;) {
        ssize_t count = getdents64(fd, buffer, room < sizeof buffer ? (room < 1024 ? 1024 : room) : sizeof buffer);
        /* ENOENT: the directory was removed, and is empty. */
        if (count < 0 && !size && errno != ENOENT) {
            answer_error(errno);
            done_with(fd, own);
            return;
        }
        if (count <= 0)
            break;
        for (ssize_t at = 0; at < count;) {
            const struct dirent64 *found = (void *)(buffer + at);
            size_t taken = add_entry(space() + size, room - size, fd, found, plus);
            if (!taken)
                goto full;
            size += taken;
            at += found->d_reclen;
        }
    }
full:
    answer(size);
    done_with(fd, own);
}

/* The whole ---------------------------------------------------------------------------------------------------- */

static size_t kernel_log(char *text, size_t room)
{
    int size = klogctl(3, text, room);
    return size < 0 ? 0 : size;
}

/* The node of the root at `place`, which stays; 0 with errno. */
static uint32_t take_root(const char *place, struct stat *status)
{
    int root = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint32_t number = root < 0 ? 0 : find(root, root, ".", status);
    if (number)
        nodes[number].pinned = 1;
    return number;
}

/* Mount what the request says at a place of its own. Returns its root's node, 0 with errno. */
static uint32_t mount_disk(struct stat *status)
{
    uint32_t *flags = fixed(sizeof *flags);
    const char *device = string(sizeof *flags);
    const char *type = device ? string(sizeof *flags + strlen(device) + 1) : NULL;
    const char *options = type ? string(sizeof *flags + strlen(device) + strlen(type) + 2) : NULL;
    char place[32];
    if (!options) {
        errno = EINVAL;
        return 0;
    }
    snprintf(place, sizeof place, "/mnt/%d", mounts);
    unsigned long how = MS_NODEV | MS_NOSUID | MS_NOEXEC | MS_NOATIME | (*flags & MOUNT_WRITABLE ? 0 : MS_RDONLY);
    if ((mkdir(place, 0700) < 0 && errno != EEXIST) || mount(device, place, type, how, options) < 0)
        return 0;
    uint32_t number = take_root(place, status);
    if (number)
        mounts++;
    else
        umount2(place, MNT_DETACH);
    return number;
}

static void do_mount(void)
{
    struct stat status;
    if (!visiting)
        klogctl(5, NULL, 0);
    uint32_t number = visiting ? take_root("/", &status) : mount_disk(&status), error = number ? 0 : errno;
    memcpy(space(), &error, sizeof error);
    if (number) {
        fill_entry((void *)(space() + sizeof error), number, &status);
        answer(sizeof error + sizeof(struct fuse_entry_out));
    } else {
        answer(sizeof error + (visiting ? 0 : kernel_log(space() + sizeof error, 4096)));
    }
}

static void do_pack(int node)
{
    if (packing < 0)
        packing = reopen(node, O_RDONLY | O_DIRECTORY, S_IFDIR);
    answer_result(packing);
}

/* The host has another consumer: nothing that it held is held any more, but for the mounts. */
static void reset(void)
{
    drop_readers(0);
    for (uint32_t i = 1; i < handle_room; i++)
        if (handles[i] >= 0) {
            close(handles[i]);
            handles[i] = -1;
        }
    for (uint32_t i = 2; i < node_count; i++)
        if (nodes[i].lookups && !nodes[i].pinned)
            drop_node(i);
}

static void do_init(void)
{
    struct fuse_init_out init = {
        .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION < 38 ? FUSE_KERNEL_MINOR_VERSION : 38,
        .max_readahead = CONTENTS_MAX, .max_write = CONTENTS_MAX, .time_gran = 1, .max_pages = CONTENTS_MAX / 4096,
    };
    reset();
    answer_data(&init, sizeof init);
}

static void do_forgets(void)
{
    if (head.opcode == FUSE_FORGET) {
        struct fuse_forget_in *one = fixed(sizeof *one);
        if (one)
            forget(head.nodeid, one->nlookup);
        return;
    }
    struct fuse_batch_forget_in *batch = fixed(sizeof *batch);
    struct fuse_forget_one *each = (void *)(body + sizeof *batch);
    size_t count = batch ? (body_size - sizeof *batch) / sizeof *each : 0;
    for (size_t i = 0; i < count && i < batch->count; i++)
        forget(each[i].nodeid, each[i].nlookup);
}

/* Requests that are about no node, or whose node plays no part. Returns 0 for the others. */
static int handle_plain(void)
{
    switch (head.opcode) {
    case FUSE_INIT: do_init(); break;
    case FUSE_DESTROY: reset(); answer_error(0); break;
    case MOUNT: do_mount(); break;
    case FUSE_FORGET: case FUSE_BATCH_FORGET: do_forgets(); break;
    case FUSE_INTERRUPT: break;
    case FUSE_WRITE: do_write(); break;
    case FUSE_RELEASE: case FUSE_RELEASEDIR: do_release(); break;
    case FUSE_FSYNC: case FUSE_FSYNCDIR: do_fsync(); break;
    case FUSE_FALLOCATE: do_fallocate(); break;
    case FUSE_COPY_FILE_RANGE: do_copy_file_range(); break;
    default: return 0;
    }
    return 1;
}

static void handle_node(int fd)
{
    switch (head.opcode) {
    case FUSE_LOOKUP:
        if (name_at(0))
            answer_entry(fd, name_at(0));
        else
            answer_error(EINVAL);
        break;
    case FUSE_GETATTR: answer_attr(fd); break;
    case FUSE_SETATTR: do_setattr(fd); break;
    case FUSE_READLINK: do_readlink(fd); break;
    case FUSE_SYMLINK: do_symlink(fd); break;
    case FUSE_MKNOD: do_mknod(fd); break;
    case FUSE_MKDIR: do_mkdir(fd); break;
    case FUSE_UNLINK: do_unlink(fd, 0); break;
    case FUSE_RMDIR: do_unlink(fd, AT_REMOVEDIR); break;
    case FUSE_RENAME: case FUSE_RENAME2: do_rename(fd); break;
    case FUSE_LINK: do_link(fd); break;
    case FUSE_OPEN: do_open(fd); break;
    case FUSE_CREATE: do_create(fd); break;
    case FUSE_READ: do_read(fd); break;
    case FUSE_LSEEK: do_lseek(fd); break;
    case FUSE_STATFS: do_statfs(fd); break;
    case FUSE_SETXATTR: do_setxattr(fd); break;
    case FUSE_GETXATTR: do_getxattr(fd, 0); break;
    case FUSE_LISTXATTR: do_getxattr(fd, 1); break;
    case FUSE_REMOVEXATTR: answer_result(string(0) ? removexattr(path_of(fd), string(0)) : (errno = EINVAL, -1)); break;
    case FUSE_OPENDIR: answer_opened(reopen(fd, O_RDONLY | O_DIRECTORY, S_IFDIR)); break;
    case FUSE_READDIR: do_readdir(fd, 0); break;
    case FUSE_READDIRPLUS: do_readdir(fd, 1); break;
    case PACK: do_pack(fd); break;
    case FUSE_SYNCFS: answer_result(syncfs(nodes[head.nodeid].mount)); break;
    default: answer_error(ENOSYS);
    }
}

static void handle_request(void)
{
    if (handle_plain())
        return;
    int temporary, fd = node_fd(head.nodeid, &temporary);
    if (fd < 0)
        answer_error(errno);
    else
        handle_node(fd);
    done_with(fd, temporary);
}

/* Read until there is a whole request; the end of the last whole one, 0 at the end of the input. */
static size_t read_requests(void)
{
    memcpy(in, rest, rest_size);
    in_end = rest_size;
    for (;;) {
        size_t end = 0;
        while (in_end - end >= sizeof head) {
            uint32_t length;
            memcpy(&length, in + end, sizeof length);
            if (length < sizeof head || length > REQUEST_MAX) {
                broken = 1;
                return 0;
            }
            if (in_end - end < length)
                break;
            end += length;
        }
        if (end) {
            rest_size = in_end - end;
            memcpy(rest, in + end, rest_size);
            return end;
        }
        ssize_t count = read(input, in + in_end, INPUT_MAX - in_end);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            broken |= count < 0 || in_end;
            return 0;
        }
        in_end += count;
    }
}

/* Begin to read what the request at `at` will want: the disk then works for many files at once. Nothing is waited for,
 * and what cannot be read is told by the request itself. */
static void read_ahead(const char *at)
{
    struct fuse_in_header header;
    struct fuse_read_in wanted;
    int temporary;
    memcpy(&header, at, sizeof header);
    if (header.opcode != FUSE_READ || header.len < sizeof header + sizeof wanted)
        return;
    memcpy(&wanted, at + sizeof header, sizeof wanted);
    int fd = node_fd(header.nodeid, &temporary);
    int file = fd < 0 ? -1 : wanted.fh ? file_of(wanted.fh) : reader(header.nodeid, fd);
    if (file >= 0 && wanted.size <= CONTENTS_MAX)
        posix_fadvise(file, wanted.offset, wanted.size, POSIX_FADV_WILLNEED);
    done_with(fd, temporary);
}

static void read_ahead_all(size_t end)
{
    uint32_t length;
    for (size_t at = 0; at < end; at += length) {
        memcpy(&length, in + at, sizeof length);
        if (at || length < end)
            read_ahead(in + at);
    }
}

static void handle_requests(size_t end)
{
    read_ahead_all(end);
    for (in_start = 0; in_start < end && !broken;) {
        memcpy(&head, in + in_start, sizeof head);
        /* The arguments are aligned: this overwrites the header, which has been read. */
        body_size = head.len - sizeof head;
        body = in + in_start + sizeof head;
        if ((uintptr_t)body % 8)
            body = memmove(body - (uintptr_t)body % 8, body, body_size);
        in_start += head.len;
        handle_request();
        if (out_end >= BATCH && flush_output() < 0)
            broken = 1;
    }
}

static char *new_buffer(size_t size)
{
    void *buffer;
    if (posix_memalign(&buffer, 4096, size))
        fail("memory");
    return buffer;
}

static void *worker(void *unused)
{
    in = new_buffer(INPUT_MAX);
    out = new_buffer(OUTPUT_MAX);
    for (;;) {
        pthread_mutex_lock(&turn);
        size_t end = ended ? 0 : read_requests();
        if (!end) {
            ended = 1;
            pthread_mutex_unlock(&turn);
            break;
        }
        pthread_mutex_lock(&work);
        pthread_mutex_unlock(&turn);
        handle_requests(end);
        pthread_mutex_unlock(&work);
        if (flush_output() < 0)
            broken = 1;
    }
    free(in);
    free(out);
    return unused;
}

/* Serve requests until the end of the input; 0 if that came between two of them. */
static int serve(void)
{
    pthread_t others[WORKERS - 1];
    rest = new_buffer(INPUT_MAX);
    rest_size = ended = broken = 0;
    for (int i = 0; i < WORKERS - 1; i++)
        if (pthread_create(&others[i], NULL, worker, NULL))
            fail("threads");
    worker(NULL);
    for (int i = 0; i < WORKERS - 1; i++)
        pthread_join(others[i], NULL);
    free(rest);
    return broken ? -1 : 0;
}

/* Let go of every filesystem, written back; 0 if all went well. */
static int unmount_all(void)
{
    int failed = 0;
    reset();
    for (uint32_t i = 2; i < node_count; i++)
        if (nodes[i].lookups) {
            int root = nodes[i].mount;
            failed |= syncfs(root);
            drop_node(i);
            close(root);
        }
    while (mounts > 0) {
        char place[32];
        snprintf(place, sizeof place, "/mnt/%d", --mounts);
        failed |= umount2(place, 0);
    }
    return failed;
}

static void load_modules(void)
{
    FILE *list = fopen("/modules", "re");
    char path[512];
    while (list && fgets(path, sizeof path, list)) {
        path[strcspn(path, "\n")] = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            fail(path);
        close(fd);
    }
    if (list)
        fclose(list);
}

/* All that are needed are loaded: whoever breaks into a filesystem's driver loads no more. */
static void lock_modules(void)
{
    int fd = open("/proc/sys/kernel/modules_disabled", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "1", 1) < 0)
        fail("/proc/sys/kernel/modules_disabled");
    close(fd);
}

static void set_limits(void)
{
    struct rlimit limit = { 1 << 19, 1 << 19 };
    umask(0);
    prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void prepare(void)
{
    set_limits();
    load_modules();
    mkdir("/control", 0700);
    mkdir("/mnt", 0700);
    if (mount("umlfs", "/control", "virtiofs", 0, NULL) < 0)
        fail("the control filesystem");
    if (mount("proc", "/proc", "proc", 0, NULL) < 0 || mount("dev", "/dev", "devtmpfs", 0, NULL) < 0)
        fail("/proc and /dev");
    lock_modules();
}

/* Open the streams of job `number` in the filesystem at `control`; -1 with errno. */
static int open_streams(const char *control, int number)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%d/stdin", control, number);
    input = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "%s/%d/stdout", control, number);
    output = open(path, O_WRONLY | O_CLOEXEC);
    return input < 0 || output < 0 ? -1 : 0;
}

/* Do job `number` of the control filesystem. */
static void job(int number)
{
    char path[64], text[32];
    int failed = open_streams("/control", number) < 0 || serve() < 0;
    if (packing >= 0 && !failed) {
        snprintf(path, sizeof path, "/control/%d/stderr", number);
        failed = pack(packing, output, open(path, O_WRONLY | O_CLOEXEC));
        close(packing);
        packing = -1;
    }
    failed |= unmount_all();
    close(input);
    close(output);
    snprintf(path, sizeof path, "/control/%d/status", number);
    snprintf(text, sizeof text, "exit %d\n", failed ? 1 : 0);
    write_file(path, text);
}

/* Hand out this guest's root, as job `number`. Not what is the agent's own: whoever reads that takes its jobs. */
static int visit(int number)
{
    visiting = 1;
    set_limits();
    /* Should memory be short, it is we who go. */
    write_file("/proc/self/oom_score_adj", "1000");
    if (open_streams(AGENT "/control", number) < 0 || unshare(CLONE_NEWNS) < 0
        || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 || umount2(AGENT "/control", MNT_DETACH) < 0) {
        perror("the filer");
        return 1;
    }
    return serve() < 0;
}

int main(int count, char **words)
{
    if (count > 1)
        return visit(atoi(words[1]));
    prepare();
    FILE *next = fopen("/control/next", "re");
    char line[128];
    while (next && fgets(line, sizeof line, next))
        job(atoi(line));
    write_file("/control/report", "settled\n");
    for (;;)
        pause();
}
