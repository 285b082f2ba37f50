/// @file
/// A policy of your own that decides what stays in the memory: which entries of KV state leave a tier first when it is full.
///
///     struct lru : atlas::AtlasMemoryPolicy {
///         std::vector<int64_t> evict_order(int, const std::vector<atlas::MemoryTouch> & touches,
///                                          const std::vector<atlas::MemoryEviction> &) override {
///             std::vector<int64_t> priorities;
///             for (const auto & touch : touches) {
///                 priorities.push_back(touch.now);
///             }
///             return priorities;
///         }
///     };
///
///     atlas::AtlasModelOptions options;
///     options.memory_policy = std::make_shared<lru>();
///
/// It means what the hooks evict_order and admit mean in Python, and takes the place of both: plugins are not asked where it
/// is given. native/examples/policy.cpp is a whole program.
#pragma once

#include <cstdint>
#include <vector>

namespace atlas {

/// What an entry holds. Only blocks have children.
enum class MemoryKind : uint8_t {
    BLOCK, ///< the state of `block_tokens` tokens
    TAIL, ///< of fewer, at the end of a conversation
    CHECKPOINT, ///< what cannot be rolled back, at one position
};

/// `cache_strategy` of the request that touched an entry.
enum class MemoryStrategy : uint8_t {
    LRU, ///< what was not used for longest leaves first
    LFU, ///< what is used least often
    ADAPTIVE, ///< what is worth least
};

/// A request used or made an entry. Touches of a request follow each other, the deepest entry first. While the model's file is still
/// being hashed after a start, entries have keys for the time being; then each is touched once under the key that it keeps.
struct MemoryTouch {
    uint64_t       key      = 0; ///< uniform over 1 … 2^64 - 1
    uint64_t       parent   = 0; ///< the key of the block before it; 0 where there is none
    int64_t        now      = 0; ///< a clock that counts touches and starts with the server: in each larger than before
    uint64_t       size     = 1; ///< bytes, at least 1
    double         saving   = 0; ///< what computing it would cost, in seconds of a model that takes 1 ms a token
    MemoryKind     kind     = MemoryKind::BLOCK; ///< what the entry holds
    MemoryStrategy strategy = MemoryStrategy::ADAPTIVE; ///< of the request
};

/// An entry left a tier, for lack of room or for another reason.
struct MemoryEviction {
    uint64_t key      = 0; ///< as in its touches
    int64_t  priority = 0; ///< what it had
    int64_t  now      = 0; ///< on the clock of touches
};

/// Is called on one thread of the server's for each server that it is given to, about five times a second and only when
/// something has happened, never by whoever computes tokens: nothing waits for it, and until its answer is there the server
/// evicts by an order of its own. While it is late, up to 65,536 events wait; those beyond are lost to it.
///
/// What it throws, and an answer that it may not give, is counted and logged (`failures` and `problem` of data.memory_policy in
/// the status, which is "degraded"), and the server's own order holds. It must not destroy the server, whose destructor waits for a
/// call that is under way; after that the policy is not called any more, and let go.
class AtlasMemoryPolicy {
  public:
    virtual ~AtlasMemoryPolicy() = default;

    /// Gives the entries touched their priorities in a tier, 1 (RAM) or 2 (disk): one for each touch, in their order. Those
    /// with the smallest leave first, but what belongs to a session after what does not. A priority lies between -2^62 and
    /// 2^62, and is best a time on the clock of `now`; it holds until the entry is touched again. Empty: the server's own order
    /// holds. Called once a batch for each tier that has a budget, with the touches of all tiers and the evictions of this.
    virtual std::vector<int64_t> evict_order(int tier, const std::vector<MemoryTouch> & touches,
                                             const std::vector<MemoryEviction> & evictions) = 0;

    /// Whether the tier should keep the entry just touched; false: it leaves before all others. Called after evict_order(),
    /// where that gave an order, for each touch.
    virtual bool admit(int tier, const MemoryTouch & touch) {
        (void) tier;
        (void) touch;
        return true;
    }
};

} // namespace atlas
