// Which tasks of one request are with the queue: batch_size says how many may be there at once.
//
// A member of server_response_reader, used by the HTTP thread that reads.
#pragma once

#ifdef LLAMA_ATLAS

#include <cstddef>
#include <utility>
#include <vector>

struct server_http_req;
struct server_task;

class atlas_posting {
  public:
    atlas_posting();
    ~atlas_posting(); // where server_task is known

    // Of a completion, before its tasks are posted. n_at_once: how many may be with the queue at once; 0: all. req has to
    // live until begin() has returned.
    void expect(const server_http_req & req, size_t n_at_once);

    // Looks up what the memory has for each task; then, unless all may be there at once, makes tasks of their own of child
    // tasks, which would run together with their parent.
    void begin(std::vector<server_task> & tasks);

    // Keeps those that have to wait until another one ended.
    void hold_back(std::vector<server_task> & tasks);

    // One has ended: the next one takes its place.
    template <typename queue> void post_next(queue & to) {
        if (!held.empty()) {
            to.post(std::move(held.back()));
            held.pop_back();
        }
    }

  private:
    const server_http_req *  request    = nullptr;
    size_t                   max_posted = 0;
    std::vector<server_task> held; // the next one last
};

#endif // LLAMA_ATLAS
