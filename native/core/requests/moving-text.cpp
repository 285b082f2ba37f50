#include "atlas-moving-text.hpp"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <regex>
#include <vector>

namespace atlas {

constexpr std::string_view BILLING = "x-anthropic-billing-header:";

static bool is_word(char c) { return std::isalnum((unsigned char) c) || c == '_'; }

// A `name=value;` of the line, at or behind `begin`, in the line's own text. Nothing where the line has ended.
struct billing_field {
    std::string_view name;
    size_t           begin = 0, end = 0; // of the value
};

static std::optional<billing_field> next_field(std::string_view text, size_t begin) {
    while (begin < text.size() && text[begin] == ' ') {
        begin++;
    }
    size_t at = begin;
    while (at < text.size() && is_word(text[at])) {
        at++;
    }
    if (at == begin || at >= text.size() || text[at] != '=') {
        return std::nullopt;
    }
    billing_field found;
    found.name  = text.substr(begin, at - begin);
    found.begin = at + 1;
    found.end   = std::min(text.find_first_of("; \n\r", found.begin), text.size());
    // what is cut off by a blank may be the text behind, as upstream joins the two without one
    const bool is_whole = found.end == text.size() || text[found.end] != ' ';
    return is_whole ? std::optional(found) : std::nullopt;
}

static size_t behind(const billing_field & field, std::string_view text) {
    return field.end + (field.end < text.size() && text[field.end] == ';' ? 1 : 0);
}

// The part of a version such as 2.1.101.e51 that is no number of it.
static size_t end_of_numbers(std::string_view version) {
    size_t at = 0;
    for (int n_dots = 0; at < version.size(); at++) {
        n_dots += version[at] == '.';
        if (n_dots == 3) {
            return at + 1;
        }
    }
    return at;
}

// Returns how many bytes the text became longer.
static ptrdiff_t settle(std::string & text, size_t begin, size_t end, const char * to) {
    const bool is_hash = end > begin && std::all_of(text.begin() + (ptrdiff_t) begin, text.begin() + (ptrdiff_t) end,
                                                    [](char c) { return is_word(c) || c == '-'; });
    if (!is_hash) {
        return 0;
    }
    const size_t before = text.size();
    text.replace(begin, end - begin, to);
    return (ptrdiff_t) text.size() - (ptrdiff_t) before;
}

bool settle_billing_line(std::string & text) {
    if (text.compare(0, BILLING.size(), BILLING) != 0) {
        return false;
    }
    size_t at = BILLING.size();
    while (const auto field = next_field(text, at)) {
        ptrdiff_t longer = 0;
        if (field->name == "cch") {
            longer = settle(text, field->begin, field->end, "fffff"); // as upstream has it for /v1/messages
        } else if (field->name == "cc_version") {
            const auto value = std::string_view(text).substr(field->begin, field->end - field->begin);
            longer           = settle(text, field->begin + end_of_numbers(value), field->end, "fff");
        }
        billing_field settled = *field;
        settled.end           = (size_t) ((ptrdiff_t) field->end + longer);
        at                    = behind(settled, text);
    }
    return true;
}

//
// what has moved
//

static std::optional<moved_text> find_billing(std::string_view text, size_t begin) {
    const size_t line = text.rfind(BILLING, begin);
    if (line == std::string_view::npos) {
        return std::nullopt;
    }
    size_t end = line + BILLING.size();
    while (const auto field = next_field(text, end)) {
        end = behind(*field, text);
    }
    return begin < end ? std::optional(moved_text{"billing_line", line, end}) : std::nullopt;
}

// Where it is looked for: in what surrounds the place without a blank, which needs a digit, or in all that is near it, which
// needs the name of a day or month.
enum class form_place { word, near };

struct moving_form {
    const char * what;
    form_place   in;
    const char * form;
};

// In this order: a date with a time of day is a time, and an id may hold what looks like a date.
constexpr moving_form FORMS[] = {
    {"id", form_place::word, R"([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})"},
    {"time", form_place::word, R"(\d{4}-\d\d-\d\dT\d\d:\d\d[0-9:.]*(Z|[+-]\d\d:?\d\d)?)"},
    {"time", form_place::word, R"(\b\d{1,2}:\d\d(:\d\d([.,]\d+)?)?)"},
    {"time", form_place::word, R"(\b1\d{9}(\d{3})?\b)"}, // seconds or milliseconds since 1970
    {"date", form_place::word, R"(\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b)"},
    {"date", form_place::word, R"(\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b)"},
    {"date", form_place::near,
     R"(\b(\d{1,2}\.? )?(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?( \d{1,2}(st|nd|rd|th)?)?,?( \d{4})?\b)"},
    {"date", form_place::near, R"(\b(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b)"},
    {"id", form_place::word, R"(\b[a-z]{2,12}[_-][0-9A-Za-z]{12,64}\b)"},
    {"id", form_place::word, R"(\b[0-9a-fA-F]{12,128}\b)"},
};

static bool is_digit(unsigned char c) { return std::isdigit(c) != 0; }

// Of what the forms without blanks are made.
static bool is_in_word(char c) { return is_word(c) || std::string_view("-:.,/+").find(c) != std::string_view::npos; }

// [begin, end) of the text, and what surrounds it without a blank, from `from` on.
static std::string_view word_around(std::string_view text, size_t from, size_t begin, size_t end) {
    while (begin > from && is_in_word(text[begin - 1])) {
        begin--;
    }
    while (end < text.size() && is_in_word(text[end])) {
        end++;
    }
    return text.substr(begin, end - begin);
}

static bool names_a_day(std::string_view text) {
    static constexpr std::string_view NAMES[] = {"day", "Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    return std::any_of(std::begin(NAMES), std::end(NAMES),
                       [&](std::string_view name) { return text.find(name) != std::string_view::npos; });
}

// Words and numbers alone are of no request.
static bool is_id(std::string_view text) {
    return std::any_of(text.begin(), text.end(), is_digit) &&
           std::any_of(text.begin(), text.end(), [](unsigned char c) { return std::isalpha(c); });
}

static std::vector<std::regex> compiled() {
    std::vector<std::regex> forms;
    for (const auto & each : FORMS) {
        forms.emplace_back(each.form);
    }
    return forms;
}

static std::optional<moved_text> find_form(std::string_view text, size_t begin, size_t end) {
    static constexpr size_t NEAR    = 160; // bytes before the place; none of the forms is longer
    static const auto       regexes = compiled();

    const size_t from       = begin - std::min(begin, NEAR);
    const auto   near       = text.substr(from);
    const auto   word       = word_around(text, from, begin, end);
    const bool   has_digit  = std::any_of(word.begin(), word.end(), is_digit);
    const bool   has_a_name = names_a_day(near);
    for (size_t i = 0; i < regexes.size(); i++) {
        const auto [what, place, form] = FORMS[i];
        const auto in                  = place == form_place::word ? word : near;
        if (!(place == form_place::word ? has_digit : has_a_name)) {
            continue; // most prompts part at a plain word, and a std::regex takes its time
        }
        const std::cregex_iterator last;
        for (std::cregex_iterator it(in.data(), in.data() + in.size(), regexes[i]); it != last; ++it) {
            const size_t     at       = (size_t) (in.data() - text.data()) + (size_t) it->position();
            const moved_text found    = {what, at, at + (size_t) it->length()};
            const bool       is_there = found.begin < end && found.end > begin;
            if (is_there && (*what != 'i' || is_id(text.substr(found.begin, found.end - found.begin)))) {
                return found;
            }
        }
    }
    return std::nullopt;
}

// What models write calls of tools as; a result, or another message, ends it.
static std::optional<moved_text> find_tool_call(std::string_view text, size_t begin, size_t end) {
    static constexpr std::string_view BEGINS[] = {"<tool_call>", "[TOOL_CALLS]", "<function=", "<|python_tag|>",
                                                  "\"arguments\":"};
    static constexpr std::string_view ENDS[]   = {"</tool_call>", "<|im_end|>", "<|eot_id|>", "<|end|>", "</s>"};

    size_t last = std::string_view::npos;
    for (const auto mark : BEGINS) {
        const size_t at = text.substr(0, begin).rfind(mark);
        if (at != std::string_view::npos && (last == std::string_view::npos || at > last)) {
            last = at;
        }
    }
    const bool is_in_it =
        last != std::string_view::npos && std::none_of(std::begin(ENDS), std::end(ENDS), [&](std::string_view mark) {
            return text.substr(last, begin - last).find(mark) != std::string_view::npos;
        });
    return is_in_it ? std::optional(moved_text{"tool_call", begin, end}) : std::nullopt;
}

std::optional<moved_text> find_moved(std::string_view text, size_t begin, size_t end) {
    auto found = find_billing(text, begin);
    if (!found) {
        found = find_form(text, begin, end);
    }
    return found ? found : find_tool_call(text, begin, end);
}

} // namespace atlas
