// What goes on in a server, so that it can end while other threads are inside: its calls, and the streams that it has given
// away. Any thread.
#pragma once

#include "atlas-server-state.h"

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

// Counts what may not outlive the server.
class open_calls {
  public:
    class one {
      public:
        explicit one(open_calls & of) : of(of) {
            const std::lock_guard<std::mutex> held(of.mutex);
            of.n++;
        }
        ~one() {
            const std::lock_guard<std::mutex> held(of.mutex);
            if (--of.n == 0) {
                of.none.notify_all();
            }
        }
        one(const one &)             = delete;
        one & operator=(const one &) = delete;

      private:
        open_calls & of;
    };

    void wait() {
        std::unique_lock<std::mutex> held(mutex);
        none.wait(held, [this] { return n == 0; });
    }

  private:
    std::mutex              mutex;
    std::condition_variable none;
    size_t                  n = 0;
};

// A streamed answer, which whoever asked may keep for longer than the server lives: it has ended then.
class open_stream {
  public:
    open_stream(open_calls & calls, atlas_server_state & state, std::function<bool(std::string &)> next)
        : call(std::in_place, calls), state(state), next(std::move(next)) {}
    ~open_stream() { end(); }

    open_stream(const open_stream &)             = delete;
    open_stream & operator=(const open_stream &) = delete;

    // Appends the next piece; false with the last one, and after it.
    bool read(std::string & piece) {
        {
            const std::lock_guard<std::mutex> held(mutex);
            if (!next) {
                return false;
            }
            const atlas_state_scope here(state);
            if (next(piece)) {
                return true;
            }
        }
        end();
        return false;
    }

    // Ends what still runs for it. Waits for the thread that reads.
    void end() {
        const std::lock_guard<std::mutex> held(mutex);
        if (next) {
            const atlas_state_scope here(state);
            next = nullptr;
        }
        call.reset(); // from now on the server may go
    }

  private:
    std::mutex                         mutex; // held while a piece is waited for
    std::optional<open_calls::one>     call;
    atlas_server_state &               state;
    std::function<bool(std::string &)> next;
};

class open_streams {
  public:
    // Once end() was called the stream has ended, too.
    void add(const std::shared_ptr<open_stream> & stream) {
        {
            const std::lock_guard<std::mutex> held(mutex);
            if (!has_ended) {
                for (size_t i = streams.size(); i-- > 0;) {
                    if (streams[i].expired()) {
                        streams[i] = streams.back();
                        streams.pop_back();
                    }
                }
                streams.push_back(stream);
                return;
            }
        }
        stream->end();
    }

    void end() {
        std::vector<std::weak_ptr<open_stream>> open;
        {
            const std::lock_guard<std::mutex> held(mutex);
            has_ended = true;
            open.swap(streams);
        }
        for (const auto & each : open) {
            if (const auto stream = each.lock()) {
                stream->end();
            }
        }
    }

  private:
    std::mutex                              mutex;
    bool                                    has_ended = false;
    std::vector<std::weak_ptr<open_stream>> streams;
};

} // namespace atlas
