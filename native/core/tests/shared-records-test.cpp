// Records as Python asks for them, in a directory.
#include "atlas-shared-records.hpp"
#include "cases.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <filesystem>
#include <string>

namespace fs = std::filesystem;
using namespace atlas;

namespace {

using json = nlohmann::json;

struct answered {
    json        head;
    std::string values;
};

answered ask(shared_records & of, const json & question, const std::string & value = "") {
    const std::string text = of.answer(question.dump() + "\n" + value);
    const size_t      end  = text.find('\n');
    return {json::parse(text.substr(0, end)), text.substr(end + 1)};
}

std::unique_ptr<shared_records> records_in(const std::string & dir, bool is_sealed) {
    constexpr uint64_t                MAX_BYTES = 1000;
    constexpr double                  TIMEOUT_S = 60;
    std::array<uint8_t, SECRET_BYTES> secret;
    secret.fill('s');
    const auto seal = is_sealed ? std::make_shared<const fleet_seal>(secret_key(secret)) : nullptr;
    return std::make_unique<shared_records>(make_record_tier("file://" + dir, MAX_BYTES), seal, TIMEOUT_S);
}

json keys(std::initializer_list<const char *> parts) {
    json all = json::array();
    for (const char * part : parts) {
        all.push_back({"nora", part});
    }
    return all;
}

void try_records(const std::string & dir, bool is_sealed) {
    const auto of = records_in(dir, is_sealed);
    CHECK(ask(*of, {{"do", "state"}}).head.at("is_on") == true);
    CHECK(ask(*of, {{"do", "create"}, {"keys", keys({"turn.0"})}}, "one\nvalue").head.at("created") == true);
    CHECK(ask(*of, {{"do", "create"}, {"keys", keys({"turn.0"})}}, "other").head.at("created") == false);
    CHECK(ask(*of, {{"do", "replace"}, {"keys", keys({"turn.2"})}}, "two").head.empty());
    auto got = ask(*of, {{"do", "get"}, {"keys", keys({"turn.0", "turn.1", "turn.2"})}});
    CHECK(got.head.at("sizes") == json({9}) && got.values == "one\nvalue" && got.head.at("damaged").is_null());
    got = ask(*of, {{"do", "get"}, {"keys", keys({"turn.1", "turn.0", "turn.3", "turn.2"})}, {"all", true}});
    CHECK(got.head.at("sizes") == json({nullptr, 9, nullptr, 3}) && got.values == "one\nvaluetwo");

    const std::string name = ask(*of, {{"do", "add_name"}, {"owner", "nora"}}).head.at("name");
    CHECK(ask(*of, {{"do", "name"}, {"owner", "nora"}}).head.at("name") == name);
    CHECK(ask(*of, {{"do", "names"}, {"after", ""}, {"most", 9}}).head.at("names") == json({name}));
    CHECK(ask(*of, {{"do", "get"}, {"keys", json::array({json::array({"#" + name, "turn.2"})})}}).values == "two");

    // A value in the place of another is refused where it is sealed.
    const std::string place = dir + "/records/" + name.substr(0, 2) + "/" + name + "/";
    fs::copy_file(place + "turn.0", place + "turn.2", fs::copy_options::overwrite_existing);
    got = ask(*of, {{"do", "get"}, {"keys", keys({"turn.0", "turn.2"})}});
    CHECK(got.head.at("damaged") == (is_sealed ? json(1) : json()));

    CHECK(ask(*of, {{"do", "remove"}, {"keys", keys({"turn.0", "turn.2"})}}).head.empty());
    CHECK(ask(*of, {{"do", "get"}, {"keys", keys({"turn.0"})}}).head.at("sizes").empty());
}

} // namespace

CASE(shared_records_plain) { try_records(dir, false); }

CASE(shared_records_sealed) {
    if (sealing_is_missing().empty()) {
        try_records(dir, true);
    }
}

CASE(shared_records_leave_alone_what_does_not_work) {
    const std::string place = dir + "/mount";
    const auto        of    = records_in(place, false);
    const json        get   = {{"do", "get"}, {"keys", keys({"turn.0"})}};
    CHECK(ask(*of, get).head.at("failure") == "unreachable");
    CHECK(ask(*of, {{"do", "state"}}).head.at("problem").get<std::string>().find(place) != std::string::npos);
    fs::create_directory(place);
    CHECK(ask(*of, get).head.contains("failure")); // no request finds out that it works
    cases::wait_until([&] { return !ask(*of, {{"do", "ping"}, {"is_patient", true}}).head.contains("failure"); });
    CHECK(ask(*of, {{"do", "state"}}).head.at("problem").is_null() && !ask(*of, get).head.contains("failure"));
}
