/*
 * The packer: a tree as a tar archive, read while what comes next is read ahead.
 *
 * The format is pax (POSIX.1-2001) as GNU tar writes it: SCHILY.xattr.NAME for extended attributes (access lists among
 * them), GNU.sparse 1.0 for files with holes, mtime with nanoseconds. Names are in the order of their bytes, each
 * directory before what is in it; a subvolume of btrfs is a directory like any other. What cannot be read is told in
 * lines.
 *
 * The disk answers slowly, takes many questions at once, and what lies side by side in one: so entries are found and
 * their files opened AHEAD at a time, and all that are small are read together.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

int pack(int root, int output, int errors);

#define BLOCK 512
#define RECORD (20 * BLOCK)        /* archives are a multiple of it long */
#define BUFFER (1 << 20)
#define AHEAD 128                  /* entries that are found before the first of them is written */
#define AHEAD_BYTES (1 << 20)      /* of a large file that are asked for then; and later as far before they are read */
#define SMALL (32 * 1024)          /* files up to here are read together */
#define PAGE 4096
#define NAMES_MAX (64 * 1024)      /* bytes of the names of a file's attributes, and of a value */
#define XFS_LISTS "trusted.SGI_ACL_"   /* a second name of its access lists */
#define OCTAL7 07777777            /* the largest number in a field of 8 bytes */
#define OCTAL11 077777777777       /* and of 12 */

struct entry {
    char *path;                    /* `./a/b`; of a directory with a slash behind it */
    char *target;                  /* of a symlink */
    struct stat status;
    int fd;                        /* of a file, else -1 */
    int failed;                    /* errno of what could not be opened */
    char *contents;                /* all of a small file, NULL if it is not read yet */
    char *attributes;              /* pax records */
    size_t attributes_size;
};

struct level {
    int fd;
    char *path;
    char **names;
    size_t count, next;
};

static struct level *levels;
static size_t depth, depth_room;
static struct entry queue[AHEAD];
static size_t queue_next, queue_count;
static aio_context_t together;
static char *arena;

static struct link { dev_t device; ino_t inode; char *path; } *links;   /* files with several names; a hash table */
static size_t link_count, link_room;

static const char zeros[RECORD];
static char *buffer, *records;
static size_t used, records_size, records_room;
static uint64_t written;
static int out, told, broken, trouble;

/* Output ------------------------------------------------------------------------------------------------------- */

static void *need(void *memory)
{
    if (!memory) {
        dprintf(told, "tar: memory exhausted\n");
        broken = 1;
        _exit(2);
    }
    return memory;
}

static void tell(const char *path, const char *what)
{
    char line[PATH_MAX + 256];
    snprintf(line, sizeof line - 1, "tar: %s: %s", path, what);
    for (char *at = line; *at; at++)
        if ((unsigned char)*at < ' ')
            *at = '?';
    strcat(line, "\n");
    if (write(told, line, strlen(line)) < 0)
        trouble = 1;
}

static void tell_error(const char *path, const char *what, int error)
{
    char text[256];
    snprintf(text, sizeof text, "%s: %s", what, strerror(error));
    tell(path, text);
    trouble = 1;
}

static void flush(void)
{
    for (size_t done = 0; done < used && !broken;) {
        ssize_t count = write(out, buffer + done, used - done);
        if (count <= 0 && !(count < 0 && errno == EINTR))
            broken = 1;
        else if (count > 0)
            done += count;
    }
    written += used;
    used = 0;
}

static void put(const void *data, size_t size)
{
    while (size) {
        size_t piece = size < BUFFER - used ? size : BUFFER - used;
        memcpy(buffer + used, data, piece);
        used += piece;
        data = (const char *)data + piece;
        size -= piece;
        if (used == BUFFER)
            flush();
    }
}

static void fill_up(uint64_t size, size_t unit)
{
    put(zeros, (unit - size % unit) % unit);
}

/* Headers ------------------------------------------------------------------------------------------------------ */

/* A number in a field of zeros, of which the last stays. */
static void octal(char *field, size_t size, uint64_t value)
{
    for (size_t i = size - 1; i--; value >>= 3)
        field[i] = '0' + (value & 7);
}

static void header(const char *name, const char *target, char type, const struct stat *status, uint64_t size)
{
    char block[BLOCK] = { 0 };
    unsigned sum = 0;
    uint64_t uid = status->st_uid, gid = status->st_gid;
    int is_device = type == '3' || type == '4';
    memcpy(block, name, strnlen(name, 100));
    octal(block + 100, 8, status->st_mode & 07777);
    octal(block + 108, 8, uid <= OCTAL7 ? uid : 0);
    octal(block + 116, 8, gid <= OCTAL7 ? gid : 0);
    octal(block + 124, 12, size <= OCTAL11 ? size : 0);
    int64_t time = status->st_mtim.tv_sec;
    octal(block + 136, 12, time < 0 || time > OCTAL11 ? 0 : time);
    block[156] = type;
    if (target)
        memcpy(block + 157, target, strnlen(target, 100));
    memcpy(block + 257, "ustar\00000", 8);
    octal(block + 329, 8, is_device ? major(status->st_rdev) : 0);
    octal(block + 337, 8, is_device ? minor(status->st_rdev) : 0);
    memset(block + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++)
        sum += (unsigned char)block[i];
    snprintf(block + 148, 8, "%06o", sum);
    put(block, BLOCK);
}

static void keep(char **to, size_t *size, size_t *room, const void *data, size_t length)
{
    if (*size + length > *room) {
        *room = (*size + length) * 2;
        *to = need(realloc(*to, *room));
    }
    memcpy(*to + *size, data, length);
    *size += length;
}

/* Add the record `LENGTH KEY=VALUE\n`, whose length counts itself. */
static void record(char **to, size_t *size, size_t *room, const char *key, const void *value, size_t length)
{
    char digits[24];
    size_t rest = strlen(key) + length + 3, whole = rest;
    while (whole != rest + (size_t)snprintf(digits, sizeof digits, "%zu", whole))
        whole = rest + strlen(digits);
    keep(to, size, room, digits, strlen(digits));
    keep(to, size, room, " ", 1);
    keep(to, size, room, key, strlen(key));
    keep(to, size, room, "=", 1);
    keep(to, size, room, value, length);
    keep(to, size, room, "\n", 1);
}

static void say(const char *key, const char *value)
{
    record(&records, &records_size, &records_room, key, value, strlen(value));
}

static void say_number(const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    say(key, text);
}

static int is_utf8(const char *text)
{
    for (const unsigned char *at = (const void *)text; *at;) {
        int more = *at < 0x80 ? 0 : *at >= 0xc2 && *at < 0xe0 ? 1 : *at >= 0xe0 && *at < 0xf0 ? 2
            : *at >= 0xf0 && *at < 0xf5 ? 3 : -1;
        if (more < 0)
            return 0;
        for (at++; more; more--, at++)
            if ((*at & 0xc0) != 0x80)
                return 0;
    }
    return 1;
}

static int is_plain(const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++)
        if (text[i] & 0x80)
            return 0;
    return length <= 100;
}

static void say_names(const char *path, const char *target, const char *path_key)
{
    int other_path = path_key || !is_plain(path), other_target = target && !is_plain(target);
    if ((other_path && !is_utf8(path)) || (other_target && !is_utf8(target)))
        say("hdrcharset", "BINARY");
    if (other_path)
        say(path_key ? path_key : "path", path);
    if (other_target)
        say("linkpath", target);
}

static void say_numbers(const struct stat *status, uint64_t size)
{
    struct timespec time = status->st_mtim;
    char text[48];
    if (status->st_uid > OCTAL7)
        say_number("uid", status->st_uid);
    if (status->st_gid > OCTAL7)
        say_number("gid", status->st_gid);
    if (size > OCTAL11)
        say_number("size", size);
    if (!time.tv_nsec && time.tv_sec >= 0 && time.tv_sec <= OCTAL11)
        return;
    /* A time before 1970 is counted down. */
    int before = time.tv_sec < 0 && time.tv_nsec;
    long long seconds = time.tv_sec + before;
    long nanoseconds = before ? 1000000000 - time.tv_nsec : time.tv_nsec;
    snprintf(text, sizeof text, "%s%lld.%09ld", before && !seconds ? "-" : "", seconds, nanoseconds);
    say("mtime", text);
}

/* The records gathered so far, and those of the attributes, as a header of their own. */
static void put_records(const struct entry *entry)
{
    static const char name[] = "./PaxHeaders/next";
    struct stat status = { .st_mode = 0644, .st_mtim.tv_sec = entry->status.st_mtim.tv_sec };
    size_t size = records_size + entry->attributes_size;
    if (size) {
        header(name, NULL, 'x', &status, size);
        put(records, records_size);
        put(entry->attributes, entry->attributes_size);
        fill_up(size, BLOCK);
    }
    records_size = 0;
}

static void put_header(const struct entry *entry, const char *target, char type, uint64_t size)
{
    say_names(entry->path, target, NULL);
    say_numbers(&entry->status, size);
    put_records(entry);
    header(entry->path, target, type, &entry->status, size);
}

/* Contents ----------------------------------------------------------------------------------------------------- */

/* The bytes [start, end) of a file; zeros for what is not there any more. */
static void put_range(struct entry *entry, uint64_t start, uint64_t end)
{
    while (start < end && !broken) {
        size_t room = BUFFER - used, piece = end - start < room ? end - start : room;
        if (end - start > piece)
            posix_fadvise(entry->fd, start + piece, AHEAD_BYTES, POSIX_FADV_WILLNEED);
        ssize_t count = entry->fd < 0 ? 0 : pread(entry->fd, buffer + used, piece, start);
        if (count <= 0) {
            if (entry->fd >= 0) {
                tell_error(entry->path, "Read error", count < 0 ? errno : ENODATA);
                close(entry->fd);
            }
            entry->fd = -1;
            memset(buffer + used, 0, piece);
            count = piece;
        }
        used += count;
        start += count;
        if (used == BUFFER)
            flush();
    }
}

struct range { uint64_t start, length; };

/* The ranges with data, ending with one of no length at the end of the file; NULL if it has no holes. */
static struct range *data_of(const struct entry *entry, size_t *count)
{
    struct range *found = NULL;
    size_t room = 0;
    off_t size = entry->status.st_size, at = 0;
    *count = 0;
    if ((uint64_t)entry->status.st_blocks * BLOCK >= (uint64_t)size)
        return NULL;
    for (;;) {
        off_t start = at < size ? lseek(entry->fd, at, SEEK_DATA) : -1;
        off_t end = start < 0 ? size : lseek(entry->fd, start, SEEK_HOLE);
        if (start < 0)
            start = end = size;
        if (end <= start || end > size)
            end = size;
        if (*count == room) {
            room = room ? room * 2 : 16;
            found = need(realloc(found, room * sizeof *found));
        }
        found[(*count)++] = (struct range){ start, end - start };
        if (start >= size)
            break;
        at = end;
    }
    if (*count == 2 && !found[0].start && found[0].length == (uint64_t)size) {
        free(found);
        return NULL;
    }
    return found;
}

static void put_sparse(struct entry *entry, const struct range *ranges, size_t count)
{
    char *map = NULL, line[48], name[PATH_MAX];
    size_t map_size = 0, map_room = 0;
    uint64_t size = 0;
    keep(&map, &map_size, &map_room, line, snprintf(line, sizeof line, "%zu\n", count));
    for (size_t i = 0; i < count; i++) {
        int length = snprintf(line, sizeof line, "%llu\n%llu\n", (unsigned long long)ranges[i].start,
                              (unsigned long long)ranges[i].length);
        keep(&map, &map_size, &map_room, line, length);
        size += ranges[i].length;
    }
    size += (map_size + BLOCK - 1) / BLOCK * BLOCK;
    say("GNU.sparse.major", "1");
    say("GNU.sparse.minor", "0");
    say_names(entry->path, NULL, "GNU.sparse.name");
    say_number("GNU.sparse.realsize", entry->status.st_size);
    say_numbers(&entry->status, size);
    put_records(entry);
    snprintf(name, sizeof name, "./GNUSparseFile.0/%.80s", strrchr(entry->path, '/') + 1);
    header(name, NULL, '0', &entry->status, size);
    put(map, map_size);
    fill_up(map_size, BLOCK);
    for (size_t i = 0; i < count; i++)
        put_range(entry, ranges[i].start, ranges[i].start + ranges[i].length);
    fill_up(size, BLOCK);
    free(map);
}

static void put_contents(struct entry *entry)
{
    if (entry->contents)
        put(entry->contents, entry->status.st_size);
    else
        put_range(entry, 0, entry->status.st_size);
    fill_up(entry->status.st_size, BLOCK);
}

static void put_file(struct entry *entry)
{
    size_t count;
    if (entry->fd < 0) {
        tell_error(entry->path, "Cannot open", entry->failed);
        return;
    }
    struct range *ranges = data_of(entry, &count);
    if (ranges) {
        put_sparse(entry, ranges, count);
    } else {
        put_header(entry, NULL, '0', entry->status.st_size);
        put_contents(entry);
    }
    free(ranges);
}

/* Links -------------------------------------------------------------------------------------------------------- */

static struct link *slot_of(dev_t device, ino_t inode)
{
    size_t at = ((inode ^ device << 40) * 0x9e3779b97f4a7c15u >> 20) % link_room;
    while (links[at].path && (links[at].inode != inode || links[at].device != device))
        at = (at + 1) % link_room;
    return &links[at];
}

static void make_room(void)
{
    struct link *old = links;
    size_t old_room = link_room;
    link_room = old_room ? old_room * 2 : 1024;
    links = need(calloc(link_room, sizeof *links));
    for (size_t i = 0; i < old_room; i++)
        if (old[i].path)
            *slot_of(old[i].device, old[i].inode) = old[i];
    free(old);
}

/* The path by which this file is in the archive already; NULL if it is not. */
static const char *linked(const struct entry *entry)
{
    if (entry->status.st_nlink < 2)
        return NULL;
    if (link_count * 2 >= link_room)
        make_room();
    struct link *found = slot_of(entry->status.st_dev, entry->status.st_ino);
    if (found->path)
        return found->path;
    *found = (struct link){ entry->status.st_dev, entry->status.st_ino, need(strdup(entry->path)) };
    link_count++;
    return NULL;
}

static void put_entry(struct entry *entry)
{
    mode_t type = entry->status.st_mode & S_IFMT;
    const char *other = type == S_IFDIR || type == S_IFSOCK ? NULL : linked(entry);
    if (other)
        put_header(entry, other, '1', 0);
    else if (type == S_IFREG)
        put_file(entry);
    else if (type == S_IFSOCK)
        tell(entry->path, "socket ignored");
    else if (type == S_IFLNK && !entry->target)
        tell_error(entry->path, "Cannot readlink", entry->failed);
    else
        put_header(entry, entry->target,
                   type == S_IFDIR ? '5' : type == S_IFLNK ? '2' : type == S_IFCHR ? '3' : type == S_IFBLK ? '4' : '6', 0);
}

/* Finding what there is ---------------------------------------------------------------------------------------- */

/* As GNU tar has it, where a name has what ends a key. */
static void attribute_key(char *key, size_t room, const char *name)
{
    size_t at = snprintf(key, room, "SCHILY.xattr.");
    for (; *name && at + 4 < room; name++)
        at += snprintf(key + at, room - at, *name == '=' ? "%%3D" : *name == '%' ? "%%25" : "%c", *name);
}

static void read_attributes(struct entry *entry, const char *place)
{
    static char names[NAMES_MAX], value[NAMES_MAX];
    char key[3 * XATTR_NAME_MAX + 32];
    size_t room = 0;
    ssize_t size = llistxattr(place, names, sizeof names);
    for (char *name = names; name < names + size; name += strlen(name) + 1) {
        if (!strncmp(name, XFS_LISTS, sizeof XFS_LISTS - 1))
            continue;
        ssize_t length = lgetxattr(place, name, value, sizeof value);
        if (length < 0) {
            tell_error(entry->path, "Cannot read an attribute", errno);
            continue;
        }
        attribute_key(key, sizeof key, name);
        record(&entry->attributes, &entry->attributes_size, &room, key, value, length);
    }
    if (size < 0 && errno != EOPNOTSUPP)
        tell_error(entry->path, "Cannot list attributes", errno);
}

static int by_name(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* Read the names in a directory, which is `fd`'s from now on. */
static void push(int fd, const char *path)
{
    size_t room = 0;
    struct dirent *each;
    DIR *stream = fdopendir(dup(fd));
    if (depth == depth_room) {
        depth_room = depth_room ? depth_room * 2 : 64;
        levels = need(realloc(levels, depth_room * sizeof *levels));
    }
    struct level *level = &levels[depth++];
    *level = (struct level){ .fd = fd, .path = need(strdup(path)) };
    errno = 0;
    while (stream && (each = readdir(stream))) {
        if (!strcmp(each->d_name, ".") || !strcmp(each->d_name, ".."))
            continue;
        if (level->count == room) {
            room = room ? room * 2 : 64;
            level->names = need(realloc(level->names, room * sizeof *level->names));
        }
        level->names[level->count++] = need(strdup(each->d_name));
        errno = 0;
    }
    if (errno)
        tell_error(path, "Cannot read", errno);
    if (stream)
        closedir(stream);
    qsort(level->names, level->count, sizeof *level->names, by_name);
}

static void pop(void)
{
    struct level *level = &levels[--depth];
    close(level->fd);
    free(level->path);
    free(level->names);
}

static int is_empty(int directory, const char *name)
{
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), count = 0;
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    while (stream && count < 3 && readdir(stream))
        count++;
    if (stream)
        closedir(stream);
    return stream && count < 3;
}

static int is_small(const struct entry *entry)
{
    return S_ISREG(entry->status.st_mode) && entry->status.st_size > 0 && entry->status.st_size <= SMALL;
}

static void look_at_file(struct entry *entry, int directory, const char *name)
{
    int flags = O_RDONLY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC, small = is_small(entry);
    entry->fd = small ? openat(directory, name, flags | O_DIRECT) : -1;
    if (entry->fd < 0)
        entry->fd = openat(directory, name, flags);
    entry->failed = errno;
    if (entry->fd >= 0 && !small)
        posix_fadvise(entry->fd, 0, AHEAD_BYTES, POSIX_FADV_WILLNEED);
}

/* Take the results of `count` reads. What could not be read in this way is, and told of, when its turn comes. */
static void take_results(long count)
{
    static struct io_event events[AHEAD];
    long found = count > 0 ? syscall(SYS_io_getevents, together, count, count, events, NULL) : 0;
    for (long i = 0; i < found; i++) {
        struct entry *entry = &queue[events[i].data];
        if (events[i].res < entry->status.st_size)
            entry->contents = NULL;
    }
}

/* Read the contents of all small files in the queue: the kernel is told of them at once, and joins what it can. */
static void read_small_files(void)
{
    static struct iocb reads[AHEAD], *list[AHEAD];
    size_t count = 0, size = 0;
    for (size_t i = 0; i < queue_count; i++) {
        if (!is_small(&queue[i]) || queue[i].fd < 0)
            continue;
        queue[i].contents = arena + size;
        size_t room = (queue[i].status.st_size + PAGE - 1) / PAGE * PAGE;
        reads[count] = (struct iocb){ .aio_data = i, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = queue[i].fd,
                                      .aio_buf = (uintptr_t)queue[i].contents, .aio_nbytes = room };
        list[count] = &reads[count];
        size += room;
        count++;
    }
    for (size_t done = 0; done < count;) {
        long taken = syscall(SYS_io_submit, together, count - done, list + done);
        take_results(taken);
        if (taken <= 0)
            queue[reads[done].aio_data].contents = NULL;
        done += taken > 0 ? taken : 1;
    }
    for (size_t i = 0; i < queue_count; i++)
        if (is_small(&queue[i]) && queue[i].fd >= 0 && !queue[i].contents)
            fcntl(queue[i].fd, F_SETFL, 0);
}

static void look_at_link(struct entry *entry, int directory, const char *name)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(directory, name, target, sizeof target - 1);
    entry->failed = errno;
    if (length >= 0) {
        target[length] = 0;
        entry->target = need(strdup(target));
    }
}

/* Find out what `name` is, and go into it next if it is a directory. */
static void look_at(struct entry *entry, int directory, const char *above, const char *name)
{
    char place[PATH_MAX];
    mode_t type = entry->status.st_mode & S_IFMT;
    *entry = (struct entry){ .fd = -1, .status = entry->status };
    if (asprintf(&entry->path, "%s%s%s", above, name, type == S_IFDIR ? "/" : "") < 0)
        need(NULL);
    if (type == S_IFREG)
        look_at_file(entry, directory, name);
    else if (type == S_IFLNK)
        look_at_link(entry, directory, name);
    snprintf(place, sizeof place, "/proc/self/fd/%d/%s", directory, name);
    read_attributes(entry, place);
    if (type != S_IFDIR)
        return;
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
    if (fd < 0)
        tell_error(entry->path, "Cannot open", errno);
    else
        push(fd, entry->path);
}

static void tell_name(const char *above, const char *name, int error)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s%s", above, name);
    tell_error(path, "Cannot stat", error);
}

/* The next entry of the tree; 0 if there is none. */
static int find_next(struct entry *entry)
{
    while (depth) {
        struct level *level = &levels[depth - 1];
        if (level->next == level->count) {
            pop();
            continue;
        }
        char *name = level->names[level->next++];
        int found = fstatat(level->fd, name, &entry->status, AT_SYMLINK_NOFOLLOW) == 0;
        if (!found)
            tell_name(level->path, name, errno);
        else if (depth == 1 && !strcmp(name, "lost+found") && is_empty(level->fd, name))
            found = 0;   /* nobody's file: every ext4 has its own */
        else
            look_at(entry, level->fd, level->path, name);
        free(name);
        if (found)
            return 1;
    }
    return 0;
}

/* Whether there is a next entry in the queue, after filling that if need be. */
static int look_ahead(void)
{
    if (queue_next < queue_count)
        return 1;
    queue_next = queue_count = 0;
    while (queue_count < AHEAD && find_next(&queue[queue_count]))
        queue_count++;
    read_small_files();
    return queue_count > 0;
}

static void drop(struct entry *entry)
{
    if (entry->fd >= 0)
        close(entry->fd);
    free(entry->path);
    free(entry->target);
    free(entry->attributes);
}

/* The directory `root`, which is this function's from now on, to `output`, and what there is to say to `errors`. 0 if
 * all of it could be read. */
int pack(int root, int output, int errors)
{
    out = output;
    told = errors;
    buffer = need(malloc(BUFFER));
    arena = need(aligned_alloc(PAGE, AHEAD * SMALL));
    if (syscall(SYS_io_setup, AHEAD, &together) < 0)
        return 1;
    struct entry *top = &queue[0];
    if (fstat(root, &top->status) < 0)
        return 1;
    look_at(top, root, "", ".");
    if (fgetxattr(root, "user.any", NULL, 0) < 0 && errno == EOPNOTSUPP)
        tell(top->path, "this kernel reads no attributes of such a filesystem");
    queue_count = 1;
    while (look_ahead() && !broken) {
        struct entry *entry = &queue[queue_next++];
        put_entry(entry);
        drop(entry);
    }
    put(zeros, 2 * BLOCK);
    fill_up(written + used, RECORD);
    flush();
    return broken || trouble;
}
