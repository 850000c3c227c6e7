// SPDX-License-Identifier: GPL-2.0-only
/*
 * A stand-in for a machine: PID, mount, network and IPC namespaces of their own,
 * so that the tasks of a source and of a destination can have the same pids and
 * the same paths. The demo of a migration and its tests have two of them.
 *
 *   machine init FROM TO
 *      makes one, in which the directory FROM is seen as TO as well, prints the
 *      pid of its init process, and reaps until it is killed. With the one who
 *      started it all that runs in the machine dies.
 *
 *   machine run [-o FILE] [-p FD] INIT COMMAND [ARGUMENT]...
 *      runs a command in it, and exits as that does. Its output goes to FILE, as
 *      the machine sees it; its pid, as the caller sees it, is written to FD.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "machine: %s: %s\n", what, strerror(errno));
	exit(125);
}

static void exit_as(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR)
			die("waitpid");
	if (WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		raise(WTERMSIG(status));
		exit(128 + WTERMSIG(status));
	}
	exit(WEXITSTATUS(status));
}

static void __attribute__((noreturn)) be_init(const char *from, const char *to, int ready)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* before the parent is told, so it lives */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("proc", "/proc", "proc", 0, NULL) ||
	    mount(from, to, NULL, MS_BIND, NULL))
		die("mount");
	if (chdir("/") || write(ready, "", 1) != 1)
		die("can't say that it is ready");
	close(ready);

	for (;;)
		if (wait(NULL) < 0)
			usleep(2000); /* no children: there is nothing to wait for either */
}

static int init(const char *from, const char *to)
{
	int ready[2];
	pid_t pid;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC) || pipe(ready))
		die("unshare");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		close(ready[0]);
		be_init(from, to, ready[1]);
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) == 1) {
		printf("%d\n", pid);
		fclose(stdout);
	}
	exit_as(pid);
	return 125;
}

static void enter(const char *init_pid)
{
	static const char *const names[] = { "ipc", "net", "pid", "mnt" }; /* mnt: /proc is another one then */
	char path[64];
	int fds[4];
	size_t i;

	for (i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "/proc/%s/ns/%s", init_pid, names[i]);
		fds[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (fds[i] < 0)
			die(path);
	}
	for (i = 0; i < 4; i++)
		if (setns(fds[i], 0))
			die("setns");
}

/* Files that were opened outside are on mounts that nobody in the machine knows: they can't be dumped */
static void own_files(const char *out)
{
	int fd = open("/dev/null", O_RDWR), out_fd = out ? open(out, O_WRONLY | O_CREAT | O_APPEND, 0600) : fd;

	if (fd < 0 || out_fd < 0)
		die(out ? out : "/dev/null");
	if (dup2(fd, 0) < 0 || dup2(out_fd, 1) < 0 || dup2(out_fd, 2) < 0)
		die("dup2");
	if (fd > 2)
		close(fd);
	if (out_fd > 2 && out_fd != fd)
		close(out_fd);
}

static int run(const char *out, int pid_fd, const char *init_pid, char **argv)
{
	pid_t pid;

	enter(init_pid);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		if (pid_fd >= 0)
			close(pid_fd);
		setsid();
		own_files(out);
		execvp(argv[0], argv);
		die(argv[0]);
	}
	if (pid_fd >= 0 && (dprintf(pid_fd, "%d\n", pid) < 0 || close(pid_fd)))
		die("can't tell the pid");
	exit_as(pid);
	return 125;
}

int main(int argc, char **argv)
{
	const char *out = NULL;
	int c, pid_fd = -1;

	if (argc == 4 && !strcmp(argv[1], "init"))
		return init(argv[2], argv[3]);

	if (argc > 1 && !strcmp(argv[1], "run")) {
		argc--;
		argv++;
		while ((c = getopt(argc, argv, "+o:p:")) != -1) {
			if (c == 'o')
				out = optarg;
			else if (c == 'p')
				pid_fd = atoi(optarg);
			else
				break;
		}
		if (c == -1 && argc - optind >= 2)
			return run(out, pid_fd, argv[optind], argv + optind + 1);
	}
	fprintf(stderr, "usage: machine init FROM TO | run [-o FILE] [-p FD] INIT COMMAND...\n");
	return 2;
}
