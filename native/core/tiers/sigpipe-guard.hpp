// While it exists, a write of this thread to a connection that the other side closed ends no process: libraries that write
// with write(2) raise SIGPIPE, and a program that loads us may not ignore it.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <time.h>

namespace atlas {

class sigpipe_guard {
  public:
    sigpipe_guard() {
        sigset_t pending;
        ::sigemptyset(&of_pipe);
        ::sigaddset(&of_pipe, SIGPIPE);
        ::sigpending(&pending);
        was_pending = ::sigismember(&pending, SIGPIPE) == 1;
        ::pthread_sigmask(SIG_BLOCK, &of_pipe, &before);
    }
    sigpipe_guard(const sigpipe_guard &)             = delete;
    sigpipe_guard & operator=(const sigpipe_guard &) = delete;
    ~sigpipe_guard() {
        if (!was_pending) {
            const timespec now = {0, 0};
            while (::sigtimedwait(&of_pipe, nullptr, &now) == SIGPIPE) {
            }
        }
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

  private:
    sigset_t of_pipe, before;
    bool     was_pending;
};

} // namespace atlas
