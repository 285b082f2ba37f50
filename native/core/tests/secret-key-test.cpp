#include "atlas-secret-key.hpp"
#include "cases.hpp"

#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <stdexcept>

using namespace atlas;

static const std::string HEX    = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";
static const std::string BASE64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=";

static std::string raw() {
    std::string bytes;
    for (int i = 0; i < 31; i++) {
        bytes += (char) i;
    }
    return bytes + '\xff';
}

template <typename F> static std::string problem_of(F make) {
    try {
        make();
    } catch (const std::invalid_argument & error) {
        return error.what();
    }
    return "";
}

static bool has(const std::string & text, const std::string & part) { return text.find(part) != std::string::npos; }

CASE(a_key_is_bytes_digits_or_base64) {
    const std::string unpadded = BASE64.substr(0, 43);
    std::string       upper = HEX, url = BASE64;
    for (char & c : upper) {
        c = (char) std::toupper(c);
    }
    url[41] = url[41] == '/' ? '_' : url[41];
    for (const std::string & content :
         {raw(), HEX, HEX + "\n", HEX + "\r\n", " " + HEX, upper, BASE64, BASE64 + "\n", unpadded, url}) {
        CHECK(parse_key(content, "it").text() == raw());
    }
}

CASE(what_is_no_key_is_refused_and_not_shown) {
    const std::string text(32, 'k'); // 32 letters are no 32 random bytes
    for (const std::string & content :
         {std::string(), std::string("secret"), text, HEX.substr(1), HEX + "0", HEX.substr(0, 63) + "g",
          HEX.substr(0, 32), raw() + "\n", raw().substr(1), BASE64.substr(0, 42), BASE64 + "A",
          BASE64.substr(0, 20) + "!" + BASE64.substr(21), BASE64.substr(0, 42) + "9=", std::string(32, '\0'),
          std::string(64, '0'), HEX + " " + HEX}) {
        const std::string problem = problem_of([&] { parse_key(content, "encryption_key_file FILE"); });
        CHECK(problem.rfind("encryption_key_file FILE", 0) == 0);
        CHECK(has(problem, "openssl rand -hex 32"));
        CHECK(content.size() < 6 || !has(problem, content.substr(0, 6)));
    }
}

CASE(a_key_is_read_from_a_file) {
    const std::string path = dir + "/key";
    std::ofstream(path) << HEX << "\n";
    ::chmod(path.c_str(), 0644); // as Kubernetes mounts secrets: a warning, no error
    CHECK(read_key_file(path, "it").text() == raw());
    std::ofstream(path) << std::string(5000, 'x');
    CHECK(has(problem_of([&] { read_key_file(path, "it"); }), path));
    for (const std::string & other : {dir + "/none", dir, std::string("/dev/zero"), std::string("/dev/null")}) {
        const std::string problem = problem_of([&] { read_key_file(other, "shared_secret_file"); });
        CHECK(problem.rfind("shared_secret_file " + other + ": ", 0) == 0);
    }
}

CASE(a_key_comes_from_a_command) {
    const auto run = [](const std::string & command) { return read_key_of_command(command, "encryption_key_command"); };
    CHECK(run("echo " + HEX).text() == raw());
    CHECK(run("echo asked the vault >&2; printf %s " + BASE64).text() == raw());
}

CASE(a_command_that_fails_says_why_and_never_what_it_printed) {
    const auto run = [](const std::string & command, int patience_ms = 30000) {
        return problem_of(
            [&] { read_key_of_command(command, "encryption_key_command", std::chrono::milliseconds(patience_ms)); });
    };
    std::string problem = run("echo " + HEX + "; echo no such key >&2; exit 3");
    CHECK(has(problem, "encryption_key_command") && has(problem, "status 3: no such key") && !has(problem, HEX));
    CHECK(has(run("kill -9 $$"), "signal 9"));
    CHECK(has(run("/no/such/program"), "status 127"));
    problem = run("echo rubbish");
    CHECK(has(problem, "8 bytes that are no key") && !has(problem, "rubbish"));
    CHECK(has(run("yes | head -c 1000000"), "no key"));
    CHECK(has(run(""), "0 bytes that are no key"));
}

CASE(a_command_that_hangs_is_killed_with_what_it_started) {
    const std::string pid_file = dir + "/pid";
    for (const std::string & command :
         {"sleep 1000 & echo $! > " + pid_file + "; wait", "echo $$ > " + pid_file + "; exec >&- 2>&-; sleep 1000"}) {
        std::string problem;
        const auto  began = std::chrono::steady_clock::now();
        try {
            read_key_of_command(command, "encryption_key_command", std::chrono::milliseconds(500));
        } catch (const std::invalid_argument & error) {
            problem = error.what();
        }
        CHECK(has(problem, "did not end within 0.50 s"));
        CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(60));
        std::string pid;
        std::ifstream(pid_file) >> pid;
        cases::wait_until([&] {
            std::string   name, state;
            std::ifstream status("/proc/" + pid + "/stat");
            std::string   number;
            status >> number >> name >> state;
            return number.empty() || state == "Z";
        });
    }
}
