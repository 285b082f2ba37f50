#include "atlas-call-texts.hpp"
#include "cases.hpp"

#include <algorithm>
#include <string>
#include <vector>

using atlas::call_texts;
using atlas::restore_calls;

using texts = std::vector<std::string>;

static std::string restored(const std::string & answer, const std::string & rendered, const texts & arguments) {
    static const std::string BEFORE = "<|assistant|>";

    std::string text = BEFORE + rendered;
    restore_calls(text, BEFORE.size(), answer, arguments);
    CHECK(text.compare(0, BEFORE.size(), BEFORE) == 0);
    return text.substr(BEFORE.size());
}

CASE(calls_come_back_as_they_were_written) {
    const std::string end         = "\n</tool_call><|end|>\n<|tool|>It rains.";
    const auto        is_restored = [&](const std::string & written, const std::string & rendered,
                                        const std::string & arguments) {
        return restored(written + "\n</tool_call>", rendered + end, {arguments}) == written + end;
    };
    const std::string call = "Hm.\n<tool_call>\n{\"name\": \"f\", \"arguments\": ";
    CHECK(is_restored(call + "{\"n\":1e3}}", call + "{\"n\": 1000.0}}", "{\"n\":1e3}"));
    CHECK(is_restored(call + "{ \"n\" : 1 , \"m\" : 2 } }", call + "{\"n\": 1, \"m\": 2}}", "{\"n\": 1, \"m\": 2}"));
    CHECK(is_restored(call + "{\"t\": \"\\u00e9\\/\"}}", call + "{\"t\": \"é/\"}}", "{\"t\": \"é/\"}"));
    CHECK(is_restored(call + "{\"b\": {}, \"a\": [1.50]}}", call + "{\"a\": [1.5], \"b\": {}}}",
                      "{\"a\":[1.5],\"b\":{}}"));
    CHECK(is_restored("[{\"name\":\"f\",\"arguments\":{}}]", "[{\"name\": \"f\", \"arguments\": {}}]", "{}"));
    CHECK(is_restored(call + "{\"n\": [52.520008, 1234567.8, 1e-9]}}", call + "{\"n\": [52.52, 1.23457e+06, 0.0]}}",
                      "{\"n\": [52.520008, 1234567.8, 1e-9]}")); // as templates write them
    // templates have their own blanks around tags
    CHECK(is_restored("Hm.\n\n<c>{\"n\":1}", "Hm.\n<c>\n{\"n\": 1}", "{\"n\": 1}"));
    CHECK(is_restored("\n{\"n\":1}", "{\"n\": 1}", "{\"n\": 1}"));
    // formats that write each argument by itself
    const std::string parameter = "<function=f>\n<parameter=n>\n";
    CHECK(is_restored(parameter + "1e3\n</parameter>", parameter + "1000.0\n</parameter>", "{\"n\": 1e3}"));
    CHECK(is_restored(parameter + "[1,2]\n</parameter>", parameter + "[1, 2]\n</parameter>", "{\"n\": [1,2]}"));
}

CASE(several_calls_of_an_answer) {
    const std::string written  = "<c>{\"n\":1e1}</c><c>{\"m\": \"x\"}</c><c>{ \"k\": [1e2] }</c>";
    const std::string rendered = "<c>{\"n\": 10.0}</c><c>{\"m\": \"x\"}</c><c>{\"k\": [100.0]}</c><|end|>";
    CHECK(restored(written, rendered, {"{\"n\":1e1}", "{\"m\": \"x\"}", "{\"k\":[1e2]}"}) == written + "<|end|>");
    // one that was changed stays, and so does all behind it
    const std::string changed = "<c>{\"n\": 10.0}</c><c>{\"m\": \"y\"}</c><c>{\"k\": [100.0]}</c><|end|>";
    CHECK(restored(written, changed, {"{\"n\":1e1}", "{\"m\": \"x\"}", "{\"k\":[1e2]}"}) ==
          "<c>{\"n\":1e1}</c><c>{\"m\": \"y\"}</c><c>{\"k\": [100.0]}</c><|end|>");
}

CASE(what_says_something_else_stays) {
    const auto stays = [](const std::string & answer, const std::string & rendered, const texts & arguments) {
        return restored(answer, rendered, arguments) == rendered;
    };
    CHECK(stays("{\"n\":1e3}", "{\"n\": 1001.0}", {"{\"n\":1e3}"}));
    CHECK(stays("{\"n\":1e3}", "{\"n\": \"1000\"}", {"{\"n\":1e3}"}));
    CHECK(stays("{\"n\":1e3}", "{\"n\": 1000.0, \"m\": 1}", {"{\"n\":1e3}"}));
    CHECK(stays("{\"n\":1e3}", "{\"n\": 1000.0", {"{\"n\":1e3}"}));
    CHECK(stays("{\"n\":1e3", "{\"n\": 1000.0}", {"{\"n\":1e3"}));
    CHECK(stays("Look: {\"n\":1e3}", "Look: {\"n\": 1000.0}", {"{\"m\": 1}"})); // of no call
    CHECK(stays("Look: {\"n\":1e3}", "Look: {\"n\": 1000.0}", {}));
    CHECK(stays("v1e3 {\"n\":1e3}", "v1000.0 {\"n\":1e3}", {"{\"n\":1e3}"}));
    CHECK(stays("I see it. {\"n\":1e3}", "I  see it. {\"n\": 1000.0}", {"{\"n\":1e3}"}));
    CHECK(stays("I see. {\"n\":1e3}", "I saw. {\"n\": 1000.0}", {"{\"n\":1e3}"}));
    CHECK(stays("", "{\"n\": 1000.0}", {"{\"n\":1e3}"}));
    CHECK(stays("{\"n\":1e3}", "", {"{\"n\":1e3}"}));
    const std::string deep = std::string(100000, '[') + std::string(100000, ']');
    CHECK(stays("{\"n\":" + deep + "}", "{\"n\": " + deep + "}", {"{\"n\":" + deep + "}"}));
}

CASE(an_answer_is_found_behind_its_own_prompt_only) {
    const std::string asked = "<|user|>How much?<|assistant|>", wrote = "{\"n\":1e3}", sent = "{\"n\": 1000.0}";
    const std::string more = "<|end|><|user|>And now?<|assistant|>";
    call_texts        kept;
    std::string       first = asked;
    kept.keep("t", kept.restore("t", first, {}), wrote, {sent});
    CHECK(first == asked);

    const auto next = [&](const std::string & tenant, const std::string & prompt) {
        std::string text = prompt;
        const auto  end  = kept.restore(tenant, text, {"{\"n\": 1000}", "{\"m\": 2e1}"});
        CHECK(end.n_bytes == text.size());
        return text;
    };
    CHECK(next("t", asked + sent + more) == asked + wrote + more);
    CHECK(next("u", asked + sent + more) == asked + sent + more);
    CHECK(next("", asked + sent + more) == asked + sent + more);
    CHECK(next("t", "<|system|>" + asked + sent + more) == "<|system|>" + asked + sent + more);

    std::string changed = asked + sent + more;
    kept.restore("t", changed, {"{\"n\": 1000.001}"});
    CHECK(changed == asked + sent + more); // by the client, in what the template does not show

    // the second answer's prompt has the first one's words, and the third turn has both
    std::string second = asked + sent + more;
    kept.keep("t", kept.restore("t", second, {sent}), "{\"m\":2e1}", {"{\"m\":2e1}"});
    CHECK(next("t", asked + sent + more + "{\"m\": 20}" + more) == asked + wrote + more + "{\"m\":2e1}" + more);
    // the same prompt was answered again
    std::string again = asked;
    kept.keep("t", kept.restore("t", again, {}), "{\"n\" :1e3}", {sent});
    CHECK(next("t", asked + sent + more) == asked + "{\"n\" :1e3}" + more);
}

CASE(what_was_used_longest_ago_is_given_up) {
    const size_t MANY = 3000, LARGE = 1 << 16;
    for (const size_t padding : {size_t(0), LARGE / 64}) {
        call_texts kept(LARGE * 16);
        const auto is_kept = [&](size_t i) {
            const std::string prompt = "prompt " + std::to_string(i) + "|";
            std::string       text   = prompt + "{\"n\": 1000.0}" + std::string(padding, ' ');
            const std::string before = text;
            kept.restore("t", text, {"{\"n\": 1e3}"});
            return text != before;
        };
        for (size_t i = 0; i < MANY; i++) {
            std::string prompt = "prompt " + std::to_string(i) + "|";
            kept.keep("t", kept.restore("t", prompt, {}), "{\"n\":1e3}" + std::string(padding, ' '), {"{\"n\":1e3}"});
            CHECK(is_kept(i) && is_kept(0));
        }
        CHECK(!is_kept(1) && is_kept(MANY - 2));
    }
    call_texts  kept(LARGE);
    std::string prompt = "p";
    kept.keep("t", kept.restore("t", prompt, {}), "{\"n\":1e3}" + std::string(LARGE / 64, ' '), {"{\"n\":1e3}"});
    std::string text = "p{\"n\": 1000.0}";
    kept.restore("t", text, {"{\"n\": 1e3}"});
    CHECK(text == "p{\"n\": 1000.0}");
}
