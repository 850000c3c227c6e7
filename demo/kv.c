// SPDX-License-Identifier: GPL-2.0-only
/*
 * A service in shared memory, and its client: what the demo of a migration moves.
 *
 *   kv serve SOCKET MIB READY
 *      two processes answer requests, all from one anonymous shared object: a
 *      table with a value of one page for each key. READY appears when it is filled.
 *
 *   kv ask SOCKET-A SOCKET-B MINE KEYS RECORDS PID-A PID-A
 *      reads and writes random keys until SIGTERM, about 2000 a second. Each request
 *      goes to both places where the service may be; whoever runs it answers.
 *      RECORDS gets a struct record for each answer. Then it looks at each page once.
 *
 * A value is a function of key and version, and the client knows the version of
 * each key. It compares a hash of what the service reads, so one wrong byte shows.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PAGE	 4096UL
#define WORDS	 (PAGE / sizeof(uint64_t) - 2)
#define SWEEP	 64 /* pages in an answer to SWEEP */
#define SLOTS	 32 /* requests without an answer */
#define INTERVAL 500000ULL
#define RETRY	 10000000ULL

struct value {
	uint32_t lock, pad;
	uint64_t version;
	uint64_t words[WORDS];
};

enum { GET,
       PUT,
       LOOK }; /* LOOK: at SWEEP keys */

struct request {
	uint64_t seq;
	uint32_t op, pad;
	uint64_t key, version;
};

struct answer {
	uint64_t seq, at; /* at: when it was given: the client may get no processor */
	uint32_t op, nr;
	struct {
		uint64_t version, hash;
	} of[SWEEP];
};

/* In RECORDS; times are CLOCK_MONOTONIC in ns */
struct record {
	uint64_t asked, answered, at;
	uint32_t side, op;
};

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static uint64_t word_of(uint64_t key, uint64_t version, size_t i)
{
	return mix(((key << 9) + i) ^ (version << 44)) | 1; /* never zero */
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static uint64_t now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static void __attribute__((noreturn)) die(const char *what)
{
	perror(what);
	exit(1);
}

static int bound(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int sk = socket(AF_UNIX, SOCK_DGRAM, 0);

	unlink(path);
	if (strlen(path) >= sizeof(sun.sun_path)) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(sun.sun_path, path);
	if (sk < 0 || bind(sk, (struct sockaddr *)&sun, sizeof(sun)))
		die(path);
	return sk;
}

/*
 * The service.
 */
static void lock(struct value *v)
{
	while (__atomic_exchange_n(&v->lock, 1, __ATOMIC_ACQUIRE))
		usleep(10); /* the other one may wait for the page */
}

static void unlock(struct value *v)
{
	__atomic_store_n(&v->lock, 0, __ATOMIC_RELEASE);
}

static void store(struct value *v, uint64_t key, uint64_t version)
{
	size_t i;

	for (i = 0; i < WORDS; i++)
		v->words[i] = word_of(key, version, i);
	v->version = version;
}

static uint64_t hash(const struct value *v)
{
	uint64_t h = v->version;
	size_t i;

	for (i = 0; i < WORDS; i++)
		h = mix(h + v->words[i]);
	return h;
}

static void serve_one(struct value *table, const struct request *q, struct answer *a)
{
	uint32_t i;

	a->seq = q->seq;
	a->op = q->op;
	a->nr = q->op == LOOK ? SWEEP : 1;
	for (i = 0; i < a->nr; i++) {
		struct value *v = &table[q->key + i];

		lock(v);
		if (q->op == PUT && v->version < q->version) /* it may have been sent twice */
			store(v, q->key, q->version);
		a->of[i].version = v->version;
		a->of[i].hash = hash(v);
		unlock(v);
	}
}

static int serve(const char *path, unsigned long mib, const char *ready)
{
	uint64_t key, keys = mib * (1048576 / PAGE);
	struct value *table;
	int sk, fd;

	table = mmap(NULL, keys * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (table == MAP_FAILED)
		die("mmap");
	for (key = 0; key < keys; key++)
		store(&table[key], key, 0);

	sk = bound(path);
	if (fork() < 0)
		die("fork");
	fd = open(ready, O_CREAT | O_WRONLY, 0600);
	if (fd < 0 || close(fd))
		die(ready);

	for (;;) {
		struct sockaddr_un from;
		socklen_t len = sizeof(from);
		struct request q;
		struct answer a;

		if (recvfrom(sk, &q, sizeof(q), 0, (struct sockaddr *)&from, &len) != sizeof(q))
			continue;
		if (q.key >= keys || (q.op == LOOK && q.key + SWEEP > keys))
			continue;
		serve_one(table, &q, &a);
		/* CRIU restores tasks with a CLOCK_MONOTONIC that goes on from the dump */
		a.at = clock_ns(CLOCK_REALTIME);
		sendto(sk, &a, offsetof(struct answer, of) + a.nr * sizeof(a.of[0]), MSG_DONTWAIT,
		       (struct sockaddr *)&from, len);
	}
}

/*
 * The client.
 */
struct slot {
	struct request q;
	uint64_t asked, again; /* again: when it is repeated */
	bool busy;
};

static struct slot slots[SLOTS];
static struct sockaddr_un places[2];
static int sockets[2];
static pid_t pids_of_a[2];
static uint64_t keys, *versions, seq;
static unsigned long wrong, answers[2], late[2];
static volatile sig_atomic_t over;

static void stop(int sig)
{
	over = sig;
}

static void send_request(struct slot *s)
{
	int side;

	s->again = now() + RETRY;
	for (side = 0; side < 2; side++) /* whether it arrives is seen by the answer */
		sendto(sockets[side], &s->q, sizeof(s->q), MSG_DONTWAIT, (struct sockaddr *)&places[side],
		       sizeof(places[side]));
}

static bool in_use(uint64_t key)
{
	int i;

	for (i = 0; i < SLOTS; i++)
		if (slots[i].busy && slots[i].q.op != LOOK && slots[i].q.key == key)
			return true;
	return false;
}

static struct slot *free_slot(void)
{
	int i;

	for (i = 0; i < SLOTS; i++)
		if (!slots[i].busy)
			return &slots[i];
	return NULL;
}

static void ask(struct slot *s, uint32_t op, uint64_t key)
{
	s->busy = true;
	s->q = (struct request){ .seq = ++seq * SLOTS + (uint64_t)(s - slots), .op = op, .key = key };
	if (op == PUT)
		s->q.version = versions[key] + 1;
	s->asked = now();
	send_request(s);
}

static void ask_something(void)
{
	uint64_t dice = mix(now()), key = dice % keys;
	struct slot *s = free_slot();

	if (s && !in_use(key))
		ask(s, (dice >> 60) < 3 ? PUT : GET, key);
}

static void verify(const struct slot *s, const struct answer *a, int side)
{
	struct value v;
	uint32_t i;

	for (i = 0; i < a->nr; i++) {
		uint64_t key = s->q.key + i;

		store(&v, key, versions[key]);
		if (a->of[i].version == versions[key] && a->of[i].hash == hash(&v))
			continue;
		wrong++;
		printf("wrong key=%llu op=%u side=%d version=%llu want=%llu\n", (unsigned long long)key, a->op, side,
		       (unsigned long long)a->of[i].version, (unsigned long long)versions[key]);
	}
}

/*
 * Who has answered is told by the pid: what was queued at A when it was dumped is answered by B, but to
 * the socket that belongs to A.
 */
static int receive(int sk, struct answer *a)
{
	char control[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec iov = { a, sizeof(*a) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	struct ucred *from;

	if (recvmsg(sk, &m, MSG_DONTWAIT) <= 0)
		return -1;
	c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_type != SCM_CREDENTIALS)
		die("nobody has sent it");
	from = (struct ucred *)CMSG_DATA(c);
	return from->pid != pids_of_a[0] && from->pid != pids_of_a[1];
}

static void take_answers(int sk, FILE *records)
{
	struct answer a;
	int side;

	while ((side = receive(sk, &a)) >= 0) {
		struct slot *s = &slots[a.seq % SLOTS];
		struct record r = { s->asked, now(), a.at - (clock_ns(CLOCK_REALTIME) - now()), (uint32_t)side, a.op };

		if (!s->busy || s->q.seq != a.seq) {
			late[side]++;
			continue;
		}
		if (a.op == PUT)
			versions[s->q.key] = s->q.version;
		verify(s, &a, side);
		s->busy = false;
		answers[side]++;
		if (records)
			fwrite(&r, sizeof(r), 1, records);
	}
}

static bool any_busy(void)
{
	int i;

	for (i = 0; i < SLOTS; i++)
		if (slots[i].busy)
			return true;
	return false;
}

static void wait_and_take(FILE *records, int ms)
{
	struct pollfd p[2] = { { sockets[0], POLLIN, 0 }, { sockets[1], POLLIN, 0 } };
	int i;

	poll(p, 2, ms);
	for (i = 0; i < 2; i++)
		take_answers(sockets[i], records);
	for (i = 0; i < SLOTS; i++)
		if (slots[i].busy && now() > slots[i].again)
			send_request(&slots[i]);
	if (records)
		fflush(records);
}

/* Each page once; the answers tell what they are now */
static unsigned long look_at_all(void)
{
	uint64_t key = 0, end = now() + 60000000000ULL;

	while ((key < keys || any_busy()) && now() < end) {
		struct slot *s = key < keys ? free_slot() : NULL;
		int i, busy = 0;

		for (i = 0; i < SLOTS; i++)
			busy += slots[i].busy;
		if (s && busy < 8) { /* more do not fit into the queue of a socket */
			ask(s, LOOK, key);
			key += SWEEP;
		} else {
			wait_and_take(NULL, 1);
		}
	}
	return any_busy() ? 0 : keys;
}

static int ask_all(char **argv)
{
	FILE *records;
	uint64_t next, end;
	char path[256];
	int i, one = 1;

	for (i = 0; i < 2; i++) {
		places[i].sun_family = AF_UNIX;
		strncpy(places[i].sun_path, argv[i], sizeof(places[i].sun_path) - 1);
		snprintf(path, sizeof(path), "%s.%d", argv[2], i);
		sockets[i] = bound(path);
		pids_of_a[i] = atoi(argv[5 + i]);
		if (setsockopt(sockets[i], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)))
			die("SO_PASSCRED");
	}
	keys = strtoull(argv[3], NULL, 10);
	versions = calloc(keys, sizeof(*versions));
	records = fopen(argv[4], "w");
	if (!versions || !records)
		die(argv[4]);
	signal(SIGTERM, stop);

	for (next = now(); !over; next += INTERVAL) {
		ask_something();
		do {
			struct timespec ts = { 0, 100000 };

			wait_and_take(records, 0);
			nanosleep(&ts, NULL);
		} while (now() < next && !over);
	}

	end = now() + 10000000000ULL;
	while (any_busy() && now() < end)
		wait_and_take(records, 1);
	i = any_busy();
	printf("lost=%d wrong=%lu answers_a=%lu answers_b=%lu late_a=%lu late_b=%lu\n", i, wrong, answers[0], answers[1],
	       late[0], late[1]);
	printf("looked=%lu", i ? 0 : look_at_all());
	printf(" wrong=%lu\n", wrong);
	return fclose(records) || i || wrong;
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "serve"))
		return serve(argv[2], strtoul(argv[3], NULL, 10), argv[4]);
	if (argc == 9 && !strcmp(argv[1], "ask"))
		return ask_all(argv + 2);
	fprintf(stderr, "usage: kv serve SOCKET MIB READY | ask SOCKET-A SOCKET-B MINE KEYS RECORDS PID-A PID-A\n");
	return 2;
}
