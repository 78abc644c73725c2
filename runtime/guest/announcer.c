/*
 * The announcer: repeats in a guest what the host has done to a shared directory already, so that the guest's kernel tells its
 * programs of it (inotify). None of it reaches the host: there these requests are known by our group, and answered as if
 * the change had just happened. It does the same for a mount on the host, where its requests are known by its number.
 *
 *     announcer GID CHANGES DONE PLACE...
 *
 * Each read of CHANGES gives one change; a byte is written to DONE when it was tried. Both are files, or numbers of
 * descriptors. PLACEs are mounts of the shared directories. A change is a `struct change`, and four strings that end with
 * a NUL: the path of the directory from the PLACE, the name in it, and both again of where it was moved. What has an
 * empty name is the directory itself. GID 0 is no group of ours.
 *
 * Nothing is done where somebody else would answer: at a PLACE that has no OUTSIDE, which is there for us alone, and
 * beyond a mount point in it.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { CREATED, REMOVED, MOVED, MODIFIED, WRITTEN, ATTRIBUTES };

struct change {
    uint16_t place;
    uint16_t kind;
    uint32_t mode; /* the file type */
    uint32_t major, minor;
};

#define ROOM (64 * 1024)
#define OUTSIDE ".umlfs-outside"

/* A descriptor of the directory with this path, or -1. */
static int open_directory(int place, char *path)
{
    struct stat first, found;
    int directory = openat(place, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || fstat(directory, &first))
        return -1;
    for (char *name = strtok(path, "/"); name; name = strtok(NULL, "/")) {
        int below = openat(directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(directory);
        if (below < 0)
            return -1;
        directory = below;
        if (fstat(directory, &found) || found.st_dev != first.st_dev) {
            close(directory);
            return -1;
        }
    }
    return directory;
}

static void create(int directory, const char *name, const struct change *change)
{
    switch (change->mode & S_IFMT) {
    case S_IFDIR:
        mkdirat(directory, name, 0700);
        break;
    case S_IFLNK:
        symlinkat("x", directory, name);
        break;
    default:
        mknodat(directory, name, change->mode | 0600, makedev(change->major, change->minor));
    }
}

/* Have the kernel ask for the attributes: it drops what it has cached of contents that have changed. */
static int look(int directory, const char *name, struct statx *found)
{
    int flags = AT_STATX_FORCE_SYNC | AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    return statx(directory, name, flags, STATX_BASIC_STATS, found);
}

static void modify(int directory, const char *name)
{
    struct statx found;
    if (look(directory, name, &found) || !S_ISREG(found.stx_mode))
        return;
    /* The time of modification alone: to inotify that is IN_MODIFY. */
    struct timespec times[2] = {{0, UTIME_OMIT}, {found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec}};
    utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW);
}

/* Give it the mode that it has. Not a chown: with that the kernel takes away file capabilities. */
static void change_attributes(int directory, const char *name)
{
    struct statx found;
    char path[64];
    int file = openat(directory, *name ? name : ".", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (!look(file, "", &found)) {
        if (S_ISLNK(found.stx_mode))
            fchownat(file, "", found.stx_uid, -1, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH);
        else
            chmod(path, found.stx_mode & 07777);
    }
    close(file);
}

static void write_nothing(int directory, const char *name)
{
    struct statx found;
    if (look(directory, name, &found) || !S_ISREG(found.stx_mode))
        return;
    int file = openat(directory, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file >= 0)
        close(file);
}

static void move(int place, int directory, const char *name, char *path, const char *new_name)
{
    int target = open_directory(place, path);
    if (target < 0)
        return;
    renameat(directory, name, target, new_name);
    close(target);
}

static void perform(int place, const struct change *change, char *strings[4])
{
    int directory = open_directory(place, strings[0]);
    const char *name = strings[1];
    if (directory < 0)
        return;
    switch (change->kind) {
    case CREATED:
        create(directory, name, change);
        break;
    case REMOVED:
        unlinkat(directory, name, S_ISDIR(change->mode) ? AT_REMOVEDIR : 0);
        break;
    case MOVED:
        move(place, directory, name, strings[2], strings[3]);
        break;
    case MODIFIED:
        modify(directory, name);
        break;
    case WRITTEN:
        write_nothing(directory, name);
        break;
    case ATTRIBUTES:
        change_attributes(directory, name);
        break;
    }
    close(directory);
}

/* A descriptor of the root of a mount, or -1 if it is not ours. */
static int open_place(const char *path)
{
    int place = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int outside = place < 0 ? -1 : openat(place, OUTSIDE, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (outside >= 0) {
        close(outside);
        return place;
    }
    if (place >= 0)
        close(place);
    return -1;
}

static void understand(char *message, size_t length, int count, char **paths)
{
    struct change change;
    char *strings[4], *end = message + length, *next = message + sizeof change;
    if (length < sizeof change)
        return;
    memcpy(&change, message, sizeof change);
    for (int i = 0; i < 4; i++) {
        strings[i] = next;
        next = next < end ? memchr(next, 0, end - next) : NULL;
        if (!next)
            return;
        next++;
    }
    int place = change.place < count ? open_place(paths[change.place]) : -1;
    if (place >= 0) {
        perform(place, &change, strings);
        close(place);
    }
}

static int stream(const char *word, int flags)
{
    return *word == '/' ? open(word, flags | O_CLOEXEC) : atoi(word);
}

int main(int argc, char **argv)
{
    static char message[ROOM];
    if (argc < 5)
        return 2;
    gid_t gid = strtoul(argv[1], NULL, 10);
    int changes = stream(argv[2], O_RDONLY), done = stream(argv[3], O_WRONLY);
    if (changes < 0 || done < 0)
        return 1;
    /* From here on every request is the announcer's. */
    if (gid && (setgroups(0, NULL) || setresgid(gid, gid, gid)))
        return 1;
    for (;;) {
        ssize_t length = read(changes, message, sizeof message);
        if (length <= 0)
            return 0;
        understand(message, length, argc - 4, argv + 4);
        if (write(done, "", 1) != 1)
            return 1;
    }
}
