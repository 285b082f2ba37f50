// What the KV of tokens depends on besides the tokens: whose they are, and the adapters that they were computed under.
#pragma once

#ifdef LLAMA_ATLAS

#include <map>
#include <mutex>
#include <string>
#include <vector>

struct common_adapter_lora_info;
struct server_task;

struct atlas_adapter {
    float scale    = 0;
    bool  is_alora = false; // begins in the middle of a prompt, at certain tokens
};

// The adapters of the loaded model, with the scales of requests that name none. The loop sets them, before a task is launched
// under others, and who loads the model, and who answered POST /lora-adapters; any thread may ask.
class atlas_adapters {
  public:
    void                       set(std::vector<atlas_adapter> all);
    void                       set_scales(const std::map<int, float> & scales); // of those that it does not name: 0
    std::vector<atlas_adapter> now() const;

  private:
    mutable std::mutex         mutex; // held for a copy of a few numbers
    std::vector<atlas_adapter> all;
};

std::vector<atlas_adapter> atlas_adapters_of(const std::vector<common_adapter_lora_info> & loaded);

// scales: of the adapters that a request names, all others are 0 then; empty: as the server has set them. The text is that of
// memory_root::of().
std::string atlas_lineage_of(const std::string & tenant, std::vector<atlas_adapter> adapters,
                             const std::map<int, float> & scales);

// Whether what is in force for the task leaves a prompt as it is up to the tokens where it begins: what a slot computes from
// there on is not the lineage's. The loop thread, after atlas_set_lineage().
bool atlas_begins_later(const server_task & task);

#endif // LLAMA_ATLAS
