#include "atlas-moving-text.hpp"
#include "cases.hpp"

#include <random>
#include <string>

static const std::string HEAD = "x-anthropic-billing-header:";

static std::string settled(std::string text) {
    atlas::settle_billing_line(text);
    return text;
}

CASE(billing_lines_of_one_client_become_equal) {
    const std::string rest = "You are Claude Code. cch=12345; cc_version=1.2.3.abc;\ncch=1;";
    for (const std::string between : {"", "\n", "\n\n"}) {
        const std::string wanted = HEAD + " cc_version=2.1.101.fff; cc_entrypoint=cli; cch=fffff;" + between + rest;
        for (const std::string hash : {"a5145", "f", "0123456789abcdef0123456789abcdef", "Zz_-9"}) {
            for (const std::string of_version : {"e51", "0", "deadbeef"}) {
                CHECK(settled(HEAD + " cc_version=2.1.101." + of_version + "; cc_entrypoint=cli; cch=" + hash + ";" +
                              between + rest) == wanted);
            }
        }
        CHECK(settled(wanted) == wanted);
    }
    CHECK(settled(HEAD + "cc_version=2.1.153.9bb;cc_entrypoint=cli;cch=595c4") ==
          HEAD + "cc_version=2.1.153.fff;cc_entrypoint=cli;cch=fffff");
    CHECK(settled(HEAD + " cch=1;\n\nHello") == HEAD + " cch=fffff;\n\nHello");
}

CASE(all_that_is_no_hash_of_a_billing_line_stays) {
    for (const std::string & text : {
             std::string(),
             HEAD,
             HEAD + " ",
             HEAD + " cc_version=2.1.38; cc_entrypoint=cli;You are Claude Code.",
             HEAD + " cch=;rest",
             HEAD + " cch=a5145 You are", // where the line ends is not known
             HEAD + " cch=a+b;",
             HEAD + " x cch=a5145;",
             HEAD + "\ncch=a5145;",
             " " + HEAD + " cch=a5145;",
             "What is " + HEAD + " cch=a5145;?",
             std::string("x-anthropic-other: cch=a5145;"),
         }) {
        CHECK(settled(text) == text);
    }
}

// Whatever comes, what is behind the line and what is no hash is what it was.
CASE(billing_lines_by_chance_lose_nothing) {
    static const char * PIECES[] = {" ", ";", "=", "cch=", "cc_version=", "2.1.", "a5145", "\n", "You", "."};
    std::minstd_rand    random(1);
    std::uniform_int_distribution<size_t> any(0, std::size(PIECES) - 1);
    for (int i = 0; i < 20000; i++) {
        std::string text = HEAD;
        for (size_t n = any(random) + 3; n > 0; n--) {
            text += PIECES[any(random)];
        }
        const std::string once = settled(text);
        CHECK(settled(once) == once);
        const size_t line = text.find('\n');
        if (line != std::string::npos) {
            CHECK(once.substr(once.find('\n')) == text.substr(line));
        }
        CHECK(once.compare(0, HEAD.size(), HEAD) == 0);
    }
}

// What the text between ^ and ^, which differs, is found to be: its kind and its text.
static std::string moved(std::string text) {
    const size_t begin = text.find('^');
    text.erase(begin, 1);
    const size_t end = text.find('^');
    text.erase(end, 1);
    const auto found = atlas::find_moved(text, begin, end);
    return found ? std::string(found->what) + " " + text.substr(found->begin, found->end - found->begin) : "";
}

CASE(what_moves_has_a_name) {
    CHECK(moved("<|system|>" + HEAD + " cc_entrypoint=cli; cch=a^51^45;You are") ==
          "billing_line " + HEAD + " cc_entrypoint=cli; cch=a5145;");
    CHECK(moved(HEAD + " cch=a^b;Y^ou") == "billing_line " + HEAD + " cch=ab;");
    CHECK(moved("Today's date is 2026-11-2^9^. Be kind.") == "date 2026-11-29");
    CHECK(moved("It is ^29^.11.2026 now") == "date 29.11.2026");
    CHECK(moved("Today is Sunday, ^Nov^ember 29, 2026.") == "date November 29, 2026");
    CHECK(moved("Today Date: 2^9^ Nov 2026\n") == "date 29 Nov 2026"); // as some templates begin
    CHECK(moved("Today is ^Sun^day, the first") == "date Sunday");
    CHECK(moved("Current time: 2026-11-29T1^0^:11:12.5Z\n") == "time 2026-11-29T10:11:12.5Z");
    CHECK(moved("It is now 10:1^1^ o'clock") == "time 10:11");
    CHECK(moved("now=17953^7^0000 ") == "time 1795370000");
    CHECK(moved("session 123e4567-e89b-^12^d3-a456-426614174000 of") == "id 123e4567-e89b-12d3-a456-426614174000");
    CHECK(moved("trace=0af7651916c^d4^3dd8448eb211c80319c ") == "id 0af7651916cd43dd8448eb211c80319c");
    CHECK(moved("request req_011CSH^o^Eeqs5C35K2UUqR7Fy:") == "id req_011CSHoEeqs5C35K2UUqR7Fy");
    CHECK(moved("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": 1^000^.0}}") == "tool_call 000");
}

CASE(what_is_none_of_these_has_none) {
    CHECK(moved("My name is ^Nora^, hello.") == "");
    CHECK(moved("On 2026-11-29 I ^met^ her at 10:11.") == "");
    CHECK(moved("internationalisation^s^ of 123456789012345") == "");
    CHECK(moved(HEAD + " cch=a5145;^Hello^") == "");
    CHECK(moved("<tool_call>{}</tool_call><|im_end|>^It^ rains") == "");
    CHECK(moved("^a^") == "");
}
