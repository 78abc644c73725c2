/*
 * Runs CGI scripts in a guest, a process for each request.
 *
 * cgi JOB UID GIDS HANDLER...: takes numbers of requests from /requests/next. For each, HANDLER runs as that user and with
 * those groups (numbers, with commas between them; the first is the main one) in a session of its own, at /site:
 *
 *     /requests/N/cgi/environment    its variables, NAME=VALUE, each with a NUL at its end
 *     /requests/N/cgi/input          its input
 *     /requests/N/cgi/output         its output: headers, an empty line, the body
 *     /requests/N/cgi/errors         what it complains of
 *     /requests/N/cgi/pid            gets the number of its session
 *
 * A HANDLER `connect:PLACE` is a socket at which a server listens, a path or 127.0.0.1:PORT: what is read from input goes
 * there, and what comes from there to output. Until there is one, it is tried again.
 *
 * The job's input has lines with such numbers: all processes of that session are killed. This program ends with it, or when
 * /requests/next has no number.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define GROUPS_MAX 64

static const char connect_to[] = "connect:";

static uid_t uid;
static gid_t groups[GROUPS_MAX];
static int group_count;
static char **handler;

static int open_part(unsigned long number, const char *name, int flags)
{
    char path[128];

    snprintf(path, sizeof path, "/requests/%lu/%s", number, name);
    return open(path, flags | O_CLOEXEC);
}

/* The variables, as execvpe(3) wants them; NULL if they cannot be read. */
static char **read_environment(unsigned long number)
{
    int file = open_part(number, "cgi/environment", O_RDONLY);
    char *text = NULL, *word, **found;
    size_t size = 0, room = 0, count = 1;
    ssize_t length = 0;

    if (file < 0)
        return NULL;
    do {
        room += 64 << 10;
        if (!(text = realloc(text, room + 1)))
            return NULL;
        while (size < room && (length = read(file, text + size, room - size)) > 0)
            size += length;
    } while (size == room);
    close(file);
    if (length < 0)
        return NULL; /* half of them would be another request's meaning */
    text[size] = 0;
    for (size_t at = 0; at < size; at++)
        count += !text[at];
    if (!(found = calloc(count + 1, sizeof *found)))
        return NULL;
    count = 0;
    for (word = text; word < text + size; word += strlen(word) + 1)
        found[count++] = word;
    return found;
}

static int put_in_place(unsigned long number, const char *name, int flags, int wanted)
{
    int file = open_part(number, name, flags);

    return file < 0 || dup2(file, wanted) != wanted;
}

static int connected(const char *place)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *port = place[0] == '/' ? NULL : strchr(place, ':');
    int it = socket(port ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (port)
        loopback.sin_port = htons(atoi(port + 1));
    snprintf(local.sun_path, sizeof local.sun_path, "%s", place);
    if (it >= 0 && connect(it, port ? (void *)&loopback : (void *)&local, port ? sizeof loopback : sizeof local)) {
        close(it);
        return -1;
    }
    return it;
}

static int copy(int from, int to)
{
    static char buffer[64 << 10];
    ssize_t length, done, at;

    while ((length = read(from, buffer, sizeof buffer)) > 0)
        for (at = 0; at < length; at += done)
            if ((done = write(to, buffer + at, length - at)) <= 0)
                return 1;
    return length < 0;
}

/* In the child: be between input and output and the server at `place`. Whoever waits no more kills the session. */
static void pass_on(const char *place)
{
    int server;
    pid_t sender;

    while ((server = connected(place)) < 0)
        usleep(20000);
    if (!(sender = fork()))
        _exit(copy(0, server));
    copy(server, 1);
    close(1);
    kill(sender, SIGKILL);
    _exit(0);
}

/* In the child: become the script that answers the request. */
static void answer(unsigned long number)
{
    char **environment = read_environment(number);
    int pid;

    setsid();
    signal(SIGCHLD, SIG_DFL);
    if (!environment || (pid = open_part(number, "cgi/pid", O_WRONLY)) < 0)
        _exit(127);
    dprintf(pid, "%d\n", getpid());
    close(pid);
    if (put_in_place(number, "cgi/input", O_RDONLY, 0) || put_in_place(number, "cgi/output", O_WRONLY, 1)
        || put_in_place(number, "cgi/errors", O_WRONLY, 2))
        _exit(127);
    umask(022);
    if (setgroups(group_count, groups) || setgid(groups[0]) || setuid(uid) || chdir("/site")) {
        dprintf(2, "cannot become user %u in /site: %s\n", uid, strerror(errno));
        _exit(127);
    }
    if (!strncmp(handler[0], connect_to, sizeof connect_to - 1))
        pass_on(handler[0] + sizeof connect_to - 1);
    environ = environment;
    execvp(handler[0], handler);
    dprintf(2, "%s: %s\n", handler[0], strerror(errno));
    _exit(127);
}

/* Where there is no process to be had, the request waits for one. */
static void start(unsigned long number)
{
    pid_t child;

    while ((child = fork()) < 0)
        usleep(100000);
    if (!child)
        answer(number);
}

static void take_requests(void)
{
    for (;;) {
        char word[32];
        int next = open("/requests/next", O_RDONLY | O_CLOEXEC);
        ssize_t length = next < 0 ? -1 : read(next, word, sizeof word - 1);

        if (next >= 0)
            close(next);
        if (length <= 0)
            return;
        word[length] = 0;
        start(strtoul(word, NULL, 10));
    }
}

/* In a child, which waits for orders in a read that nothing but SIGKILL ends. */
static void take_orders(FILE *orders)
{
    char line[32];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setvbuf(orders, NULL, _IONBF, 0);
    while (fgets(line, sizeof line, orders)) {
        long session = strtol(line, NULL, 10);

        if (session > 1)
            kill(-session, SIGKILL);
    }
    kill(getppid(), SIGKILL);
    _exit(0);
}

static int parse(int count, char **words)
{
    char *at;

    if (count < 5)
        return 0;
    uid = strtoul(words[2], NULL, 10);
    for (at = strtok(words[3], ","); at && group_count < GROUPS_MAX; at = strtok(NULL, ","))
        groups[group_count++] = strtoul(at, NULL, 10);
    handler = words + 4;
    return group_count > 0;
}

int main(int count, char **words)
{
    char path[128];
    FILE *orders;
    pid_t child;

    if (!parse(count, words))
        return 2;
    snprintf(path, sizeof path, "/run/umlfs/control/%s/stdin", words[1]);
    if (!(orders = fopen(path, "re")))
        return 1;
    signal(SIGCHLD, SIG_IGN); /* nobody waits for them */
    if ((child = fork()) < 0)
        return 1;
    if (!child)
        take_orders(orders);
    fclose(orders);
    take_requests();
    return 0;
}
