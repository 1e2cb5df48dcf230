/*
 * Stands in for the hypervisor under Xen's own xenstored, on a machine without Xen.
 *
 * The conformance suite of the xenstore crate holds the embedded server to what Xen's xenstored does, so it
 * runs both. xenstored asks little of Xen: an event channel per domain, the domain's ring page by grant, and
 * whether a domain is alive. Preloaded (LD_PRELOAD), this library answers all of that from files in the
 * directory FAKEXEN_DIR names:
 *
 *   domN.xenstore  the ring page of domain N (struct xenstore_domain_interface), created when introduced
 *   evtchn         FIFO, guests to xenstored: a 32-bit port number signals that port; domain N's is 1000 + N
 *   domN.evtchn    FIFO, xenstored to the guest: a byte per signal; made by the guest, or there are none
 *
 * Test use only: it checks nothing and knows one process, one page and one port per domain.
 *
 * Build: cc -shared -fPIC -o fakexen.so fakexen.c -ldl
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
/* A domain's port on xenstored's side is this plus its number. */
#define PORT_BASE 1000

/* The libraries' handles are opaque: any address that is not null will do. */
static char handle;

static const char *path_of(char path[PATH_MAX], const char *format, unsigned int domain)
{
	const char *dir = getenv("FAKEXEN_DIR");
	int length = snprintf(path, PATH_MAX, "%s/", dir ? dir : "/tmp");

	snprintf(path + length, PATH_MAX - length, format, domain);
	return path;
}

/* ---- libxenevtchn ---- */

static int signals = -1;

void *xenevtchn_open(void *logger, unsigned int flags)
{
	char path[PATH_MAX];

	path_of(path, "evtchn", 0);
	mkfifo(path, 0600);
	/* Read and write: a FIFO without writers would poll as hung up. */
	signals = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return signals < 0 ? NULL : &handle;
}

void *xenevtchn_fdopen(void *logger, int fd, unsigned int flags)
{
	signals = fd;
	return &handle;
}

int xenevtchn_close(void *xce)
{
	return 0;
}

int xenevtchn_fd(void *xce)
{
	return signals;
}

int xenevtchn_bind_virq(void *xce, unsigned int virq)
{
	return 1;
}

int xenevtchn_bind_interdomain(void *xce, uint32_t domain, uint32_t port)
{
	return PORT_BASE + domain;
}

int xenevtchn_unbind(void *xce, uint32_t port)
{
	return 0;
}

int xenevtchn_notify(void *xce, uint32_t port)
{
	char path[PATH_MAX];
	int fd;

	if (port < PORT_BASE)
		return 0;
	/* No guest at the other end, or a guest with 64 KiB of signals unread: nothing to tell either way. */
	fd = open(path_of(path, "dom%u.evtchn", port - PORT_BASE), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t ignored = write(fd, "", 1);

		(void)ignored;
		close(fd);
	}
	return 0;
}

int xenevtchn_pending(void *xce)
{
	uint32_t port;

	if (read(signals, &port, sizeof(port)) == sizeof(port))
		return port;
	errno = EAGAIN;
	return -1;
}

int xenevtchn_unmask(void *xce, uint32_t port)
{
	return 0;
}

/* ---- libxengnttab ---- */

void *xengnttab_open(void *logger, unsigned int flags)
{
	return &handle;
}

int xengnttab_close(void *xgt)
{
	return 0;
}

int xengnttab_set_max_grants(void *xgt, uint32_t count)
{
	return 0;
}

/* xenstored maps one grant per domain: reference 1, the ring page. */
void *xengnttab_map_grant_ref(void *xgt, uint32_t domain, uint32_t reference, int protection)
{
	char path[PATH_MAX];
	void *page = MAP_FAILED;
	int fd = open(path_of(path, "dom%u.xenstore", domain), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return NULL;
	if (!ftruncate(fd, PAGE))
		page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return page == MAP_FAILED ? NULL : page;
}

int xengnttab_unmap(void *xgt, void *start, uint32_t count)
{
	return munmap(start, (size_t)count * PAGE);
}

/* ---- libxenctrl: every domain exists and is alive ---- */

void *xc_interface_open(void *logger, void *dombuild_logger, unsigned int flags)
{
	return &handle;
}

int xc_interface_close(void *xch)
{
	return 0;
}

/* Up to Xen 4.17: number, security id, flags; no flag set. */
int xc_domain_getinfo(void *xch, uint32_t first, unsigned int most, void *info)
{
	uint32_t fields[3] = { first, 0, 0 };

	memcpy(info, fields, sizeof(fields));
	return 1;
}

/* From Xen 4.18 on: number in 16 bits, padding, flags; no flag set. */
int xc_domain_getinfo_single(void *xch, uint32_t domain, void *info)
{
	uint32_t fields[2] = { domain & 0xffff, 0 };

	memcpy(info, fields, sizeof(fields));
	return 0;
}

/* ---- libc: dom0's own ring, which nobody uses here, and limits an ordinary user may not raise ---- */

static int is_one_of(const char *path, const char *name)
{
	return (!strncmp(path, "/proc/xen/", 10) && !strcmp(path + 10, name)) ||
	       (!strncmp(path, "/dev/xen/", 9) && !strcmp(path + 9, name));
}

/* A descriptor for what only Xen's kernel has, -1 on failure, -2 for any other path. */
static int open_xen(const char *path)
{
	int fd;

	if (is_one_of(path, "xsd_port")) {
		fd = memfd_create("xsd_port", MFD_CLOEXEC);
		if (fd < 0 || write(fd, "1", 1) != 1 || lseek(fd, 0, SEEK_SET))
			return -1;
		return fd;
	}
	if (is_one_of(path, "xsd_kva")) {
		fd = memfd_create("xsd_kva", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, PAGE))
			return -1;
		return fd;
	}
	return -2;
}

static int open_by(const char *function, const char *path, int flags, mode_t mode)
{
	int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, function);
	int fd = open_xen(path);

	return fd == -2 ? next(path, flags, mode) : fd;
}

#define OPEN(name)                                              \
	int name(const char *path, int flags, ...)              \
	{                                                       \
		mode_t mode = 0;                                \
		va_list rest;                                   \
                                                                \
		if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) { \
			va_start(rest, flags);                  \
			mode = va_arg(rest, mode_t);            \
			va_end(rest);                           \
		}                                               \
		return open_by(#name, path, flags, mode);       \
	}

OPEN(open)
OPEN(open64)

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	return 0;
}
