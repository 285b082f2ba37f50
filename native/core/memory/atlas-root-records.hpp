// What the roots in a memory's directory stand for (docs/memory-format.md): a small text file each, to which lines are only
// added. A start that computes otherwise than those before, with another build or on another device, finds by them the state
// that may fit nevertheless.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

class sealer;

struct root_record {
    std::string root; // 64 hexadecimal digits
    std::string identity; // 64 as well: of the model's files and of the settings that decide what state means

    // By what its state was computed first, and after that by what state was proven to agree with it.
    std::vector<std::string> environments;

    // For people.
    std::string model; // the name of its file
    std::string files; // a hash of the model's files alone
    std::string settings; // those of the identity

    std::string environment() const { return environments.empty() ? "" : environments.front(); }
};

// Any thread; touches files, so never the token loop. Files that cannot be read count as missing. All members may throw
// std::bad_alloc.
class root_records {
  public:
    // Empty: no directory, and no records. seal: lines are written encrypted, and files that are not are replaced when they
    // are read.
    explicit root_records(const std::string & memory_path, std::shared_ptr<const sealer> seal = nullptr)
        : path(memory_path.empty() ? "" : memory_path + "/roots"), seal(std::move(seal)) {}

    // At most 4,096.
    std::vector<root_record> read() const;

    // Adds what the record says to that of its root, which is made where there is none. What cannot be written is logged.
    void add(const root_record & record) const;

  private:
    std::string                   path;
    std::shared_ptr<const sealer> seal;

    std::string opened(const std::string & root, const std::string & text) const;
    std::string closed(const std::string & root, const std::string & lines) const;
};

} // namespace atlas
