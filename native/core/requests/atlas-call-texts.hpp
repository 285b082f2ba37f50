// What models wrote of their tool calls, byte by byte. A client sends a call back as JSON of its own, and a template writes it
// once more: `1e3` comes back as `1000`, 52.520008 as 52.52, and all behind it would be computed anew. Any thread; locks for
// moments.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace atlas {

// Where a prompt ends and its answer begins.
struct prompt_end {
    size_t   n_bytes = 0;
    uint64_t hash    = 0xcbf29ce484222325ull; // of these bytes: FNV-1a, 64 bits
};

// The end of the first n_bytes of a prompt, from the end of fewer of them on.
prompt_end end_of(const std::string & prompt, size_t n_bytes, prompt_end from = {});

class call_texts {
  public:
    // max_bytes: of answers that are kept, beyond which those used longest ago are given up.
    explicit call_texts(size_t max_bytes = 16 << 20) : max_bytes(max_bytes) {}

    // Keeps what a model answered to a prompt, with the arguments of its calls as they were sent to the client: JSON texts.
    // Only the tenant's own prompts find it. One that is larger than a 64th of max_bytes is not kept.
    void keep(const std::string & tenant, const prompt_end & behind, std::string answer,
              const std::vector<std::string> & arguments);

    // Where a prompt goes on from one that was answered, and has the answer's calls in other words, puts the model's in
    // their place, between text that is the same byte by byte, but for blanks beside tags. sent: the arguments of all calls that the client sent, JSON
    // texts; a call that is not among them was changed, and stays. Returns where the prompt ends then.
    prompt_end restore(const std::string & tenant, std::string & prompt, const std::vector<std::string> & sent);

  private:
    struct kept_answer {
        std::string              text;
        std::vector<std::string> arguments;
    };

    struct place {
        std::string tenant;
        size_t      n_bytes;
        uint64_t    hash;

        bool operator<(const place & other) const;
    };

    struct entry {
        std::shared_ptr<const kept_answer> answer;
        std::list<place>::iterator         used; // its place in `last_used`
    };

    const size_t           max_bytes;
    std::mutex             mutex;
    std::map<place, entry> entries;
    std::list<place>       last_used; // the latest first
    size_t                 n_bytes = 0;

    static size_t bytes_of(const kept_answer & answer);
    void          give_up(const place & which);

    std::vector<size_t>                lengths_of(const std::string & tenant, size_t max);
    std::shared_ptr<const kept_answer> find(const place & which);
};

// `text`, in which an answer begins at `begin`, has JSON in the answer's own words wherever the two differ in nothing but how
// they write the arguments of a call, or what is around these, and blanks beside tags. Templates write numbers with six digits, so such are the
// same that differ in less. Behind the first place where they differ in more, the text stays as it is.
void restore_calls(std::string & text, size_t begin, const std::string & answer,
                   const std::vector<std::string> & arguments);

} // namespace atlas
