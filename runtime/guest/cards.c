/*
 * Sets up a guest's network cards: names, addresses, routes. One process does it all, for a process costs a guest
 * some 10 ms.
 *
 *     cards [again] WORD...
 *
 *     lo                   the loopback is up
 *     card KERNEL NAME     the card that the kernel calls KERNEL is called NAME, and is up
 *     name KERNEL NAME     it is called NAME, and no more
 *     address A/LENGTH     the last card has that address of IPv4 or IPv6
 *     gateway A            it leads to the world by that one
 *
 * With `again` cards that are up are connected again: they go down and up, and get what they lost by it. What fails is
 * told in one line on standard error, and ends it with status 1. IPv6 is left out where the kernel has none, or
 * was told to have none.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TRIES 2000 /* what a card goes by is started while the kernel boots: ten seconds */
#define PAUSE_NS 5000000

struct request {
    struct nlmsghdr header;
    char room[256];
};

struct address {
    unsigned char bytes[16];
    int family, length, prefix;
};

static int netlink, again, no_ipv6;
static const char *card = ""; /* the last that was named */
static int card_index;

static void fail(const char *what)
{
    fprintf(stderr, "%s%s%s: %s\n", card, *card ? ": " : "", what, strerror(errno));
    exit(1);
}

/* ---- messages of rtnetlink */

/* A message of that type whose body begins with `fixed`. */
static void begin(struct request *request, int type, int flags, const void *fixed, size_t length)
{
    memset(request, 0, sizeof *request);
    request->header.nlmsg_len = NLMSG_LENGTH(length);
    request->header.nlmsg_type = type;
    request->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    memcpy(NLMSG_DATA(&request->header), fixed, length);
}

static void put(struct request *request, int type, const void *value, size_t length)
{
    struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = RTA_LENGTH(length);
    memcpy(RTA_DATA(attribute), value, length);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
}

/* Have the kernel do it; -1 and errno if it will not. */
static int ask(const struct request *request)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[512];
    } answer;
    if (send(netlink, request, request->header.nlmsg_len, 0) < 0)
        return -1;
    ssize_t length = recv(netlink, &answer, sizeof answer, 0);
    if (length < (ssize_t)(sizeof answer.header + sizeof answer.error.error)) {
        errno = EPROTO;
        return -1;
    }
    errno = -answer.error.error;
    return errno ? -1 : 0;
}

static int set_link(int index, const char *name, int is_up)
{
    struct request request;
    struct ifinfomsg link = {.ifi_index = index, .ifi_flags = is_up > 0 ? IFF_UP : 0, .ifi_change = is_up < 0 ? 0 : IFF_UP};
    begin(&request, RTM_NEWLINK, 0, &link, sizeof link);
    if (name)
        put(&request, IFLA_IFNAME, name, strlen(name) + 1);
    return ask(&request);
}

static int is_up(const char *name)
{
    struct ifreq found;
    memset(&found, 0, sizeof found);
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strncpy(found.ifr_name, name, IFNAMSIZ - 1);
    int up = any >= 0 && !ioctl(any, SIOCGIFFLAGS, &found) && found.ifr_flags & IFF_UP;
    close(any);
    return up;
}

/* ---- words */

static void set_name(const char *kernel, const char *name)
{
    card = name;
    if (!(card_index = if_nametoindex(kernel)))
        fail(kernel);
    if (strcmp(kernel, name) && set_link(card_index, name, -1))
        fail("its name");
}

static void bring_up(void)
{
    struct timespec pause = {0, PAUSE_NS};
    for (int tries = 0; set_link(card_index, NULL, 1); tries++) {
        if (tries == TRIES)
            fail("it does not come up");
        nanosleep(&pause, NULL);
    }
}

/* Whether the card is to be connected again: it goes down. */
static int taken_down(const char *name)
{
    card = name;
    card_index = if_nametoindex(name);
    if (!card_index || !is_up(name)) {
        card_index = 0;
        return 0;
    }
    return !set_link(card_index, NULL, 0);
}

static struct address parse(char *word)
{
    struct address found = {.prefix = -1};
    char *slash = strchr(word, '/');
    if (slash) {
        *slash = 0;
        found.prefix = atoi(slash + 1);
    }
    found.family = strchr(word, ':') ? AF_INET6 : AF_INET;
    found.length = found.family == AF_INET ? 4 : 16;
    if (inet_pton(found.family, word, found.bytes) != 1) {
        errno = EINVAL;
        fail(word);
    }
    return found;
}

/* What the kernel did not do is no fault if it was so already, or if there can be none. */
static void forgive(const struct address *address, const char *word)
{
    if (address->family == AF_INET6 && (errno == EOPNOTSUPP || errno == EAFNOSUPPORT || errno == EACCES))
        no_ipv6 = 1;
    if (!again && errno != EEXIST && !(no_ipv6 && address->family == AF_INET6))
        fail(word);
}

/* Nobody else can have an address of this link: IPv6 need not ask for a second whether somebody has. */
static void add_address(char *word)
{
    struct request request;
    struct address it = parse(word);
    struct ifaddrmsg message = {it.family, it.prefix, IFA_F_PERMANENT | IFA_F_NODAD, RT_SCOPE_UNIVERSE, card_index};
    begin(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message, sizeof message);
    put(&request, IFA_LOCAL, it.bytes, it.length);
    put(&request, IFA_ADDRESS, it.bytes, it.length);
    if (it.family == AF_INET && it.prefix < 31) {
        unsigned int bits, host = it.prefix ? 0xffffffff >> it.prefix : 0xffffffff;
        memcpy(&bits, it.bytes, 4);
        bits |= htonl(host);
        put(&request, IFA_BROADCAST, &bits, 4);
    }
    if (ask(&request))
        forgive(&it, word);
}

/* A router that announces itself gets no second route, nor the card a second address. Where there is no such file there
 * is no IPv6, or nothing is lost but that. */
static void ignore_announcements(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/accept_ra", card);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "0", 1) < 0)
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
    close(fd);
}

static void add_gateway(char *word)
{
    struct request request;
    struct address it = parse(word);
    struct rtmsg message = {
        .rtm_family = it.family,
        .rtm_table = RT_TABLE_MAIN,
        .rtm_protocol = RTPROT_STATIC, /* as systemd-networkd makes it: there are not two then */
        .rtm_scope = RT_SCOPE_UNIVERSE,
        .rtm_type = RTN_UNICAST,
    };
    if (it.family == AF_INET6)
        ignore_announcements();
    begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &message, sizeof message);
    put(&request, RTA_GATEWAY, it.bytes, it.length);
    put(&request, RTA_OIF, &card_index, sizeof card_index);
    if (ask(&request))
        forgive(&it, word);
}

/* Do one word with what follows it; how many they were. */
static int perform(char **words)
{
    if (!strcmp(words[0], "lo")) {
        if (set_link(1, NULL, 1))
            fail("lo");
        return 1;
    }
    if (!words[1])
        return -1;
    if (!strcmp(words[0], "address") || !strcmp(words[0], "gateway")) {
        if (card_index)
            (words[0][0] == 'a' ? add_address : add_gateway)(words[1]);
        return 2;
    }
    if (!words[2])
        return -1;
    if (!again)
        set_name(words[1], words[2]);
    if (!strcmp(words[0], "card") && (!again || taken_down(words[2])))
        bring_up();
    return 3;
}

int main(int count, char **words)
{
    netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (netlink < 0)
        fail("netlink");
    again = count > 1 && !strcmp(words[1], "again");
    for (words += 1 + again; *words;) {
        int used = perform(words);
        if (used < 0) {
            fprintf(stderr, "cards: %s: nothing follows it\n", *words);
            return 2;
        }
        words += used;
    }
    return 0;
}
