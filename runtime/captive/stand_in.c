/*
 * A process of the guest that stands for something outside.
 *
 * stand_in NUMBER NAME UID: the streams of job NUMBER are opened in the control filesystem. The child, called NAME, is what
 * `ps` shows as that user's; its parent tells the host what is done to it, a line each, and does what the host says:
 *
 *     pid N                  the child's number, first of all
 *     signal N               it got a signal that it can catch
 *     stopped, continued     by SIGSTOP and SIGCONT
 *     nice N                 its niceness was set
 *     gone N                 it was killed by signal N, the last word
 *
 *     N                      from the host: it ends with that status; so it does, with 0, at the end of the stream
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static const char control[] = "/run/umlfs/control";
static const int look_ms = 500; /* nothing tells when a niceness is changed */

static int open_stream(const char *number, const char *name, int flags)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s/%s", control, number, name);
    return open(path, flags | O_CLOEXEC);
}

/* What `ps` shows: it tells `report` of each signal, and does nothing else. */
static void stand(const char *name, uid_t owner, int report)
{
    struct signalfd_siginfo got;
    sigset_t all;
    int signals;

    if (setgroups(0, NULL) || setgid(owner) || setuid(owner))
        _exit(1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, name);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    signals = signalfd(-1, &all, SFD_CLOEXEC);
    while (read(signals, &got, sizeof got) == sizeof got)
        if (got.ssi_signo != SIGCONT)
            dprintf(report, "signal %u\n", got.ssi_signo);
    _exit(1);
}

/* A read of the host's words waits for them, and poll(2) does not: so a process waits. */
static void listen_to(int in, int words)
{
    char buffer[64];
    ssize_t count;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while ((count = read(in, buffer, sizeof buffer)) > 0)
        if (write(words, buffer, count) != count)
            break;
    _exit(0);
}

/* Tell what became of the child; whether it is gone. */
static int looked_after(pid_t child, int out)
{
    int status;

    while (waitpid(child, &status, WNOHANG | WUNTRACED | WCONTINUED) == child) {
        if (WIFSTOPPED(status))
            dprintf(out, "stopped\n");
        else if (WIFCONTINUED(status))
            dprintf(out, "continued\n");
        else {
            dprintf(out, "gone %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
            return 1;
        }
    }
    return 0;
}

int main(int count, char **words)
{
    int in, out, told[2], before = 0;
    pid_t child, listener;

    if (count != 4)
        return 2;
    in = open_stream(words[1], "stdin", O_RDONLY);
    out = open_stream(words[1], "stdout", O_WRONLY);
    if (in < 0 || out < 0 || pipe2(told, O_CLOEXEC))
        return 1;
    if ((child = fork()) == 0)
        stand(words[2], strtoul(words[3], NULL, 10), out);
    if ((listener = fork()) == 0) {
        close(told[0]);
        listen_to(in, told[1]);
    }
    close(told[1]);
    if (child < 0 || listener < 0)
        return 1;
    dprintf(out, "pid %d\n", child);
    for (;;) {
        struct pollfd wait = {.fd = told[0], .events = POLLIN};
        char word[64] = "";
        int now, ended = poll(&wait, 1, look_ms) > 0;

        if (looked_after(child, out)) {
            kill(listener, SIGKILL);
            return 0;
        }
        if (ended) {
            ssize_t length = read(told[0], word, sizeof word - 1);

            kill(child, SIGKILL);
            kill(listener, SIGKILL);
            return length > 0 ? atoi(word) & 255 : 0;
        }
        now = getpriority(PRIO_PROCESS, child);
        if (now != before)
            dprintf(out, "nice %d\n", before = now);
    }
}
