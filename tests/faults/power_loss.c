/* What a disk has when the power fails, for tests: a library for LD_PRELOAD.
 *
 * Nothing of the files under POWER_LOSS_DISK is taken to be on the disk but what fsync() and fdatasync() said: of a file its
 * content, of a directory its names. Copies of that are kept under POWER_LOSS_KEPT: content/INODE, and names/INODE with
 * lines "INODE NAME". hold/INODE is a hard link, so that no number of a file is given to another.
 *
 * The power fails at the POWER_LOSS_AT-th call that changes something under POWER_LOSS_DISK, counted from 1: the process
 * ends there, as by kill -9. tests/faults/power_loss.py then makes of the copies, and of what the kernel had, a disk
 * that there may be.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long n_calls;

#define NEXT(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

static int is_on_disk(const char * path) {
    const char * disk = getenv("POWER_LOSS_DISK");
    return disk && path && strncmp(path, disk, strlen(disk)) == 0;
}

static int path_of(int fd, char * path) {
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, PATH_MAX - 1);
    path[n < 0 ? 0 : n] = '\0';
    return n > 0;
}

static int is_file_on_disk(int fd) {
    char path[PATH_MAX];
    return path_of(fd, path) && is_on_disk(path);
}

static void count_call(void) {
    const char * at = getenv("POWER_LOSS_AT");
    if (at && ++n_calls == atol(at)) {
        kill(getpid(), SIGKILL);
        pause();
    }
}

static void require(int holds, const char * what) {
    if (!holds) {
        perror(what);
        abort();
    }
}

static void name_kept(char * path, const char * kind, unsigned long inode, const char * suffix) {
    snprintf(path, PATH_MAX, "%s/%s/%lu%s", getenv("POWER_LOSS_KEPT"), kind, inode, suffix);
}

/* All or nothing, as the process may end at any time. */
static void replace(FILE * file, const char * partial, const char * path) {
    require(fclose(file) == 0 && NEXT(rename)(partial, path) == 0, path);
}

static FILE * begin(const char * kind, unsigned long inode, char * partial, char * path) {
    char suffix[32];
    snprintf(suffix, sizeof(suffix), ".%d", gettid());
    name_kept(partial, kind, inode, suffix);
    name_kept(path, kind, inode, "");
    FILE * file = fopen(partial, "wb");
    require(file != NULL, partial);
    return file;
}

static void keep_content(const char * from, unsigned long inode) {
    char   partial[PATH_MAX], path[PATH_MAX], piece[65536];
    FILE * to   = begin("content", inode, partial, path);
    FILE * file = fopen(from, "rb");
    require(file != NULL, from);
    for (size_t n; (n = fread(piece, 1, sizeof(piece), file)) > 0;) {
        require(fwrite(piece, 1, n, to) == n, partial);
    }
    fclose(file);
    replace(to, partial, path);
}

static void hold(const char * path, unsigned long inode) {
    char held[PATH_MAX];
    name_kept(held, "hold", inode, "");
    linkat(AT_FDCWD, path, AT_FDCWD, held, AT_SYMLINK_FOLLOW);
}

static void keep_names(const char * path, unsigned long inode) {
    char   partial[PATH_MAX], kept[PATH_MAX];
    FILE * to        = begin("names", inode, partial, kept);
    DIR *  directory = opendir(path);
    require(directory != NULL, path);
    for (struct dirent * entry; (entry = readdir(directory));) {
        char below[PATH_MAX + 256];
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
            hold(below, entry->d_ino);
            fprintf(to, "%lu %s\n", (unsigned long) entry->d_ino, entry->d_name);
        }
    }
    closedir(directory);
    replace(to, partial, kept);
}

static int keep(int fd) {
    char        link[64];
    struct stat info;
    if (is_file_on_disk(fd)) {
        count_call();
        require(fstat(fd, &info) == 0, "fstat");
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        if (S_ISDIR(info.st_mode)) {
            keep_names(link, info.st_ino);
        } else {
            hold(link, info.st_ino);
            keep_content(link, info.st_ino);
        }
    }
    return 0;
}

int fsync(int fd) { return keep(fd); }
int fdatasync(int fd) { return keep(fd); }

ssize_t write(int fd, const void * bytes, size_t n) {
    if (fd > 2 && is_file_on_disk(fd)) {
        count_call();
    }
    return NEXT(write)(fd, bytes, n);
}

ssize_t pwrite(int fd, const void * bytes, size_t n, off_t offset) {
    if (is_file_on_disk(fd)) {
        count_call();
    }
    return NEXT(pwrite)(fd, bytes, n, offset);
}

ssize_t pwrite64(int fd, const void * bytes, size_t n, off64_t offset) { return pwrite(fd, bytes, n, offset); }

int ftruncate(int fd, off_t size) {
    if (is_file_on_disk(fd)) {
        count_call();
    }
    return NEXT(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int rename(const char * from, const char * to) {
    if (is_on_disk(to)) {
        count_call();
    }
    return NEXT(rename)(from, to);
}

int link(const char * from, const char * to) {
    if (is_on_disk(to)) {
        count_call();
    }
    return NEXT(link)(from, to);
}

int unlink(const char * path) {
    if (is_on_disk(path)) {
        count_call();
    }
    return NEXT(unlink)(path);
}

int mkdir(const char * path, mode_t mode) {
    if (is_on_disk(path)) {
        count_call();
    }
    return NEXT(mkdir)(path, mode);
}
