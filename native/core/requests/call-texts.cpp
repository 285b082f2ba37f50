#include "atlas-call-texts.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

namespace atlas {

using json = nlohmann::json; // objects are equal in whichever order their members are

constexpr int    MAX_DEPTH   = 64; // of JSON that is compared, which recurses
constexpr size_t MAX_PART    = 64; // of all bytes, for one answer
constexpr size_t MAX_ENTRIES = 2048; // each of a tenant's is looked for in each of its prompts

//
// what says the same
//

static bool is_of_number(char c) {
    return std::isdigit((unsigned char) c) || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

// The end of the array or object that begins at `begin`; npos where it does not end, or is too deep.
static size_t end_of_brackets(const std::string & text, size_t begin) {
    int  depth     = 0;
    bool in_string = false;
    for (size_t i = begin; i < text.size(); i++) {
        const char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH) {
                return std::string::npos;
            }
        } else if ((c == '}' || c == ']') && --depth == 0) {
            return i + 1;
        }
    }
    return std::string::npos;
}

static size_t end_of_number(const std::string & text, size_t begin) {
    size_t end = begin;
    while (end < text.size() && is_of_number(text[end])) {
        end++;
    }
    return end;
}

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

static size_t end_of_blanks(const std::string & text, size_t begin) {
    size_t end = begin;
    while (end < text.size() && is_blank(text[end])) {
        end++;
    }
    return end;
}

static bool is_bracket(char c) { return c == '{' || c == '['; }

// A value that text has somewhere.
struct value_at {
    size_t end = 0;
    json   value;
};

// Nothing where what begins there is no array, object or number.
static std::optional<value_at> read_value(const std::string & text, size_t begin) {
    value_at     found;
    const size_t end = is_bracket(text[begin]) ? end_of_brackets(text, begin) : end_of_number(text, begin);
    if (end == std::string::npos || end == begin) {
        return std::nullopt;
    }
    found.end   = end;
    found.value = json::parse(text.begin() + (ptrdiff_t) begin, text.begin() + (ptrdiff_t) end, nullptr, false);
    return found.value.is_discarded() ? std::nullopt : std::optional(std::move(found));
}

// As templates write them, with six digits, or with six behind the point.
static bool is_near(double a, double b) { return std::abs(a - b) <= std::max(1e-6, 1e-5 * std::abs(a)); }

static bool is_same(const json & a, const json & b) {
    if (a.is_number() && b.is_number()) {
        return a == b || is_near(a.get<double>(), b.get<double>());
    }
    if (a.type() != b.type() || a.size() != b.size()) {
        return false;
    }
    if (a.is_array()) {
        return std::equal(a.begin(), a.end(), b.begin(), is_same);
    }
    if (a.is_object()) {
        return std::all_of(a.items().begin(), a.items().end(), [&](const auto & each) {
            const auto it = b.find(each.key());
            return it != b.end() && is_same(each.value(), *it);
        });
    }
    return a == b;
}

// Whether a value is a call's arguments, or what a format has around them: {"name": …, "arguments": …}, a list of such.
static bool is_around(const json & value, const json & arguments, int depth) {
    return value == arguments ||
           (depth > 0 && value.is_structured() && std::any_of(value.begin(), value.end(), [&](const json & each) {
                return is_around(each, arguments, depth - 1);
            }));
}

static bool is_of_call(const json & value, const std::vector<json> & calls) {
    static const int MAX_AROUND = 3;

    return std::any_of(calls.begin(), calls.end(), [&](const json & arguments) {
        // formats like XML write each argument by itself
        const bool is_one_of_them = std::find(arguments.begin(), arguments.end(), value) != arguments.end();
        return is_one_of_them || is_around(value, arguments, MAX_AROUND);
    });
}

//
// putting it in its place
//

// Two texts that are the same from `base` on as far as `at`, in bytes of the answer; `shift` more in the other.
struct same_text {
    std::string &             text;
    const std::string &       answer;
    const std::vector<json> & calls;
    size_t                    shift;
    size_t                    base = 0, at = 0;
    int                       n_left = 1024; // brackets to try, each of which may be read to the end

    char of_text(size_t i) const { return text[shift + i]; }
    bool has_ended() const { return at >= answer.size() || shift + at >= text.size(); }

    // Puts the answer's value, which begins at `begin` in both, into the text, and goes on behind it.
    bool take(size_t begin) {
        const auto mine   = read_value(answer, begin);
        const auto theirs = mine ? read_value(text, shift + begin) : std::nullopt;
        if (!theirs || mine->end <= at || !is_same(mine->value, theirs->value) || !is_of_call(mine->value, calls)) {
            return false;
        }
        text.replace(shift + begin, theirs->end - shift - begin, answer, begin, mine->end - begin);
        base = at = mine->end;
        return true;
    }

    // The largest value around the place where they differ.
    bool take_around() {
        for (size_t i = base; i <= at && n_left > 0; i++) {
            if (is_bracket(answer[i]) && of_text(i) == answer[i]) {
                n_left--;
                if (take(i)) {
                    return true;
                }
            }
        }
        size_t number = at;
        while (number > base && is_of_number(answer[number - 1])) {
            number--;
        }
        const bool is_in_word = number > base && std::isalnum((unsigned char) answer[number - 1]);
        return !is_in_word && take(number);
    }

    // Blanks before or behind a tag, where the two differ in these.
    bool take_blanks() {
        size_t begin = at;
        while (begin > base && is_blank(answer[begin - 1])) {
            begin--;
        }
        const size_t mine = end_of_blanks(answer, begin), theirs = end_of_blanks(text, shift + begin);
        if (mine >= answer.size() || theirs >= text.size() || answer[mine] != text[theirs]) {
            return false;
        }
        if (answer[mine] != '<' && begin > 0 && answer[begin - 1] != '>') {
            return false;
        }
        text.replace(shift + begin, theirs - shift - begin, answer, begin, mine - begin);
        at = mine;
        return true;
    }
};

// Those that are objects, and not too deep to be compared.
static std::vector<json> parsed(const std::vector<std::string> & arguments) {
    std::vector<json> calls;
    for (const std::string & each : arguments) {
        const size_t begin      = each.find('{');
        const bool   is_shallow = begin != std::string::npos && end_of_brackets(each, begin) != std::string::npos;
        json         value      = is_shallow ? json::parse(each, nullptr, false) : json();
        if (value.is_object()) {
            calls.push_back(std::move(value));
        }
    }
    return calls;
}

static void restore_calls(std::string & text, size_t begin, const std::string & answer,
                          const std::vector<json> & calls) {
    same_text both = {text, answer, calls, begin};
    while (!calls.empty() && !both.has_ended()) {
        if (both.of_text(both.at) == answer[both.at]) {
            both.at++;
        } else if (!both.take_around() && !both.take_blanks()) {
            return;
        }
    }
}

void restore_calls(std::string & text, size_t begin, const std::string & answer,
                   const std::vector<std::string> & arguments) {
    restore_calls(text, begin, answer, parsed(arguments));
}

//
// which answers there are
//

prompt_end end_of(const std::string & prompt, size_t n_bytes, prompt_end from) {
    for (; from.n_bytes < n_bytes; from.n_bytes++) {
        from.hash = (from.hash ^ (unsigned char) prompt[from.n_bytes]) * 0x100000001b3ull;
    }
    return from;
}

bool call_texts::place::operator<(const place & other) const {
    return std::tie(tenant, n_bytes, hash) < std::tie(other.tenant, other.n_bytes, other.hash);
}

size_t call_texts::bytes_of(const kept_answer & answer) {
    size_t n = sizeof(entry) + 4 * sizeof(place) + answer.text.size();
    for (const std::string & each : answer.arguments) {
        n += sizeof(each) + each.size();
    }
    return n;
}

void call_texts::give_up(const place & which) {
    const auto it = entries.find(which);
    n_bytes -= bytes_of(*it->second.answer);
    last_used.erase(it->second.used);
    entries.erase(it);
}

void call_texts::keep(const std::string & tenant, const prompt_end & behind, std::string answer,
                      const std::vector<std::string> & arguments) {
    const auto   kept = std::make_shared<const kept_answer>(kept_answer{std::move(answer), arguments});
    const place  at   = {tenant, behind.n_bytes, behind.hash};
    const size_t more = bytes_of(*kept);
    if (more > max_bytes / MAX_PART) {
        return;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    if (entries.count(at)) {
        give_up(at);
    }
    while (n_bytes + more > max_bytes || entries.size() >= MAX_ENTRIES) {
        give_up(place(last_used.back()));
    }
    last_used.push_front(at);
    entries[at] = {kept, last_used.begin()};
    n_bytes += more;
}

// Of the tenant's prompts that were answered, each once, the shortest first.
std::vector<size_t> call_texts::lengths_of(const std::string & tenant, size_t max) {
    const std::lock_guard<std::mutex> lock(mutex);
    std::vector<size_t>               lengths;
    for (auto it = entries.lower_bound(place{tenant, 0, 0}); it != entries.end(); ++it) {
        if (it->first.tenant != tenant || it->first.n_bytes > max) {
            break;
        }
        if (lengths.empty() || lengths.back() != it->first.n_bytes) {
            lengths.push_back(it->first.n_bytes);
        }
    }
    return lengths;
}

std::shared_ptr<const call_texts::kept_answer> call_texts::find(const place & which) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto                        it = entries.find(which);
    if (it == entries.end()) {
        return nullptr;
    }
    last_used.splice(last_used.begin(), last_used, it->second.used);
    return it->second.answer;
}

prompt_end call_texts::restore(const std::string & tenant, std::string & prompt,
                               const std::vector<std::string> & sent) {
    std::optional<std::set<json>> known; // what was sent, once it is asked for
    prompt_end                    now;
    // what is put in changes lengths by little, and only behind the answers that were found
    for (const size_t n : lengths_of(tenant, prompt.size() + max_bytes)) {
        if (n > prompt.size()) {
            break;
        }
        now               = end_of(prompt, n, now);
        const auto answer = find({tenant, now.n_bytes, now.hash});
        if (!answer || prompt.compare(n, answer->text.size(), answer->text) == 0) {
            continue;
        }
        if (!known) {
            const auto all = parsed(sent);
            known.emplace(all.begin(), all.end());
        }
        auto calls = parsed(answer->arguments);
        calls.erase(std::remove_if(calls.begin(), calls.end(), [&](const json & each) { return !known->count(each); }),
                    calls.end());
        restore_calls(prompt, n, answer->text, calls);
    }
    return end_of(prompt, prompt.size(), now);
}

} // namespace atlas
