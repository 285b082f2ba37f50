// A server whose model is unloaded for want of requests: what it answers without being woken.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-llama-server.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

// Any thread.
class atlas_sleep {
  public:
    bool is_now() const { return is_asleep; }

    // slots: what GET /slots shows while it sleeps.
    void set(bool is_so, const common_json & slots);

    // The answer of a sleeping server to GET /slots.
    std::unique_ptr<server_http_res> answer() const;

  private:
    std::atomic<bool>  is_asleep{false};
    mutable std::mutex mutex;
    std::string        slots; // guarded by mutex
};

// Upstream's handler of GET /slots, but that a sleeping server shows its slots as they were before, and sleeps on.
// sleep has to outlive it.
atlas_handler atlas_with_slots_asleep(const atlas_sleep & sleep, const atlas_handler & stock);

#endif // LLAMA_ATLAS
