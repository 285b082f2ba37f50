#include "cases.hpp"

#include <iostream>
#include <map>

namespace cases {

static std::map<std::string, void (*)(const std::string &)> & all() {
    static std::map<std::string, void (*)(const std::string &)> known;
    return known;
}

registration::registration(const char * name, void (*run)(const std::string &)) { all()[name] = run; }

int run(int argc, char ** argv) {
    const std::string name = argc > 1 ? argv[1] : "";
    if (name == "--list") {
        for (const auto & [known, run] : all()) {
            std::cout << known << '\n';
        }
        return 0;
    }
    if (argc != 3 || !all().count(name)) {
        std::cerr << "usage: " << argv[0] << " --list | CASE DIR\n";
        return 2;
    }
    all()[name](argv[2]);
    return 0;
}

} // namespace cases
