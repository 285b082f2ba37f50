// The key out of a command: of a vault, a key service, a keyring.
#include "atlas-log.hpp"
#include "atlas-secret-key.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>

extern char ** environ;

namespace atlas {

namespace {

using clock = std::chrono::steady_clock;

constexpr size_t MAX_OUTPUT = 4096; // bytes that are kept of each stream; the rest is read and dropped

// What a stream of the command gave.
struct captured {
    int         read_end = -1;
    std::string text;

    captured() { text.reserve(MAX_OUTPUT); } // so that no copy of a key is left behind
    captured(const captured &)             = delete;
    captured & operator=(const captured &) = delete;
    ~captured() {
        close();
        wipe(text.data(), text.size());
    }

    void close() {
        if (read_end >= 0) {
            ::close(read_end);
            read_end = -1;
        }
    }
    void read() {
        char          piece[1024];
        const ssize_t n = ::read(read_end, piece, sizeof(piece));
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
            close();
        } else if (n > 0) {
            text.append(piece, std::min((size_t) n, MAX_OUTPUT - text.size()));
        }
        wipe(piece, sizeof(piece));
    }
};

// A child in a process group of its own, which is killed and waited for in the end.
class child {
  public:
    child(const std::string & command, captured & out, captured & err, const std::string & setting) {
        int pipes[2][2] = {{-1, -1}, {-1, -1}};
        if (::pipe2(pipes[0], O_CLOEXEC) != 0 || ::pipe2(pipes[1], O_CLOEXEC) != 0) {
            throw std::invalid_argument(setting + ": no pipe for its command: " + std::strerror(errno));
        }
        out.read_end = pipes[0][0];
        err.read_end = pipes[1][0];
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t          attributes;
        posix_spawn_file_actions_init(&actions);
        posix_spawnattr_init(&attributes);
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_adddup2(&actions, pipes[0][1], 1);
        posix_spawn_file_actions_adddup2(&actions, pipes[1][1], 2);
        sigset_t none, all;
        sigemptyset(&none);
        sigfillset(&all);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &all);
        posix_spawnattr_setpgroup(&attributes, 0);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        std::string  line   = command;
        char         sh[]   = "sh";
        char         c[]    = "-c";
        char * const argv[] = {sh, c, line.data(), nullptr};
        const int    error  = ::posix_spawn(&pid, "/bin/sh", &actions, &attributes, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
        posix_spawnattr_destroy(&attributes);
        ::close(pipes[0][1]);
        ::close(pipes[1][1]);
        if (error != 0) {
            throw std::invalid_argument(setting + ": /bin/sh cannot be started: " + std::strerror(error));
        }
    }
    child(const child &)             = delete;
    child & operator=(const child &) = delete;
    ~child() {
        if (pid > 0) {
            ::kill(-pid, SIGKILL);
            ::waitpid(pid, nullptr, 0);
        }
    }

    // Whether it ended in time; then `status` is as of waitpid().
    bool wait(clock::time_point deadline, int & status) {
        while (true) {
            const pid_t ended = ::waitpid(pid, &status, WNOHANG);
            if (ended == pid || (ended < 0 && errno != EINTR)) {
                pid = -1;
                return true;
            }
            if (clock::now() >= deadline) {
                return false;
            }
            ::usleep(5000);
        }
    }

  private:
    pid_t pid = -1;
};

// On one line, for a log.
std::string shown(const captured & err) {
    std::string text;
    for (const char c : err.text) {
        text += (unsigned char) c < ' ' ? ' ' : c;
    }
    const size_t end = text.find_last_not_of(' ');
    return end == std::string::npos ? "" : ": " + text.substr(0, end + 1);
}

} // namespace

secret_key read_key_of_command(const std::string & command, const std::string & setting,
                               std::chrono::milliseconds patience) {
    const auto deadline = clock::now() + patience;
    captured   out, err;
    child      running(command, out, err, setting);
    const auto fail = [&](const std::string & how) {
        throw std::invalid_argument(setting + ": its command " + how + shown(err));
    };
    while (out.read_end >= 0 || err.read_end >= 0) {
        pollfd     ready[2] = {{out.read_end, POLLIN, 0}, {err.read_end, POLLIN, 0}};
        const auto left     = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - clock::now());
        const int  n        = left.count() > 0 ? ::poll(ready, 2, (int) left.count()) : 0;
        if (n == 0 || (n < 0 && errno != EINTR)) {
            fail("did not end within " + std::to_string(patience.count() / 1000.0).substr(0, 4) + " s");
        }
        if (n > 0 && ready[0].revents != 0) {
            out.read();
        }
        if (n > 0 && ready[1].revents != 0) {
            err.read();
        }
    }
    int status = 0;
    if (!running.wait(deadline, status)) {
        fail("did not end within " + std::to_string(patience.count() / 1000.0).substr(0, 4) + " s");
    }
    if (WIFSIGNALED(status)) {
        fail("was ended by signal " + std::to_string(WTERMSIG(status)));
    }
    if (WEXITSTATUS(status) != 0) {
        fail("ended with status " + std::to_string(WEXITSTATUS(status)));
    }
    if (const std::string said = shown(err); !said.empty()) {
        logf(LogLevel::INFO, "the command of %s said%s", setting.c_str(), said.c_str());
    }
    return parse_key(out.text, setting + "'s command");
}

} // namespace atlas
