// The part of hook_calls that asks one implementation alone, with bytes that are not copied for it.
#include "atlas-hook-calls.hpp"
#include "hook-call.hpp"

#include <utility>

namespace atlas {

hook_answer hook_calls::ask_one(std::shared_ptr<const hook_table> table, hook what, size_t at, hook_text head,
                                hook_text body, const std::vector<std::string_view> & given, clock::time_point until) {
    const auto asked = std::make_shared<call>();
    asked->table     = std::move(table);
    asked->what      = what;
    asked->head      = std::move(head);
    asked->body      = std::move(body);
    asked->asked     = clock::now();
    asked->until     = until;
    asked->end       = at + 1;
    asked->bytes     = std::make_shared<payload>(given);
    asked->go_to(at);
    hook_answer answer;
    {
        std::unique_lock<std::mutex> held(mutex);
        if (is_closed) {
            answer.how = hook_answer::result::closed;
            return answer;
        }
        if (!asked->is_done) {
            push(asked);
            wait(held, *asked);
        }
        answer.how = asked->how;
        if (asked->outcome.answer) {
            answer.response = std::move(*asked->outcome.answer);
        }
    }
    asked->bytes->take_away();
    return answer;
}

bool hook_calls::read(uint64_t number, char * to, size_t size) {
    std::shared_ptr<payload> bytes;
    {
        const std::lock_guard<std::mutex> held(mutex);
        if (const auto found = taken.find(number); found != taken.end()) {
            bytes = found->second->bytes;
        }
    }
    return bytes && bytes->size() == size && bytes->read(to);
}

} // namespace atlas
