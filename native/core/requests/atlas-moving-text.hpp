// Text that clients change from one request to the next at the beginning of a prompt, so that nothing behind it can be reused.
// Pure functions on text. Any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace atlas {

// Claude Code begins its system prompt with a line for those who bill it:
//
//   x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch=a5145;
//
// cch is a hash of the request, the end of cc_version one of the conversation's first message. Where the text begins with
// such a line, puts 'fffff' and 'fff' in their places, whatever their lengths were; all else stays. Returns whether it
// begins with one.
bool settle_billing_line(std::string & text);

// A piece of a prompt that differs from what an earlier prompt has in its place.
struct moved_text {
    const char * what; // "billing_line", "time", "date", "id" or "tool_call"
    size_t       begin, end; // bytes of the text
};

// So many bytes before the place, and behind it, are worth showing to find_moved().
constexpr size_t MOVED_BEFORE = 1024;
constexpr size_t MOVED_BEHIND = 64;

// What a prompt has where it parts from another. text: of the prompt around the place; [begin, end): the first token that
// differs, in bytes of it. Nothing where it is none of the known kinds: other conversations part anywhere.
std::optional<moved_text> find_moved(std::string_view text, size_t begin, size_t end);

} // namespace atlas
