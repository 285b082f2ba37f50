// The directory of tier 2 (docs/memory-format.md): where files are, and how a file gets there whole or not at all.
// Touches files, and decides nothing; the store's threads and HTTP threads that read call it, never the token loop.
#pragma once

#include "entry-file.hpp"

#include <bitset>
#include <functional>
#include <set>

namespace atlas::memory {

enum class read_result { good, missing, foreign, damaged, failed };

constexpr int64_t MAX_FILE_TIME = 1ll << 62; // in nanoseconds since 1970

struct file_facts {
    uint64_t bytes       = 0;
    int64_t  modified_ns = 0; // since 1970; from 0 to MAX_FILE_TIME
    int      error       = 0; // errno, where the system refused
    bool     is_sealed   = false;
};

// All members throw std::system_error, whose text names the path and what the system said.
class directory {
  public:
    // seal: entries are written encrypted; null: as they are.
    directory(std::string path, bool sync_each, std::shared_ptr<const sealer> seal = nullptr)
        : root(std::move(path)), sync_each(sync_each), seal(std::move(seal)) {}

    const std::string & path() const { return root; }
    std::string         blocks_path() const { return root + "/blocks"; }

    // Files are named by their keys, and encrypted ones by keyed hashes of these: else who has the disk could tell that a
    // prompt was here that he guesses.
    digest      name_of(const digest & key) const;
    std::string path_of_name(const digest & name) const;
    std::string file_path(const digest & key) const { return path_of_name(name_of(key)); } // where it is written

    const std::shared_ptr<const sealer> & seals_by() const { return seal; }
    bool                                  is_durable() const { return sync_each; }

    // Makes what is missing of the directory, for this user only, and with sync_each durably. Any thread.
    void make() const;

    // Removes the half-written files of servers that have ended. Any thread.
    void remove_leftovers() const;

    // Puts a file in its place, under header.key; the sums in the header are filled in. Calls `rest` after each MiB.
    // Returns the size of the file. Once sync() has returned it survives a power cut. One thread at a time.
    uint64_t write(file_header header, const state_bytes & data, const std::function<void()> & rest);

    // Reads the file of an entry, encrypted or not, as read_file() does. Any thread.
    read_result read(const digest & key, file_header & header, file_facts & facts, state_bytes * data) const;

    // Sets the file's time to now, from which the next start knows when it was used. It does not matter where that fails.
    void mark_used(const digest & key) const;

    // Removes the file of an entry, encrypted or not; that it is not there is fine. Any thread.
    void remove(const digest & key) const;
    void remove_file(const std::string & path) const;

    // Makes the names of the files durable; does nothing without sync_each. One thread at a time, with write().
    void   sync();
    size_t n_unsynced() const { return unsynced.size(); }

  private:
    std::string                   root;
    bool                          sync_each;
    std::shared_ptr<const sealer> seal;
    std::set<std::string>         unsynced; // directories with names that a power cut may lose; empty without sync_each

    // Whether the name of a file's directory is durable, by the first four digits of names. That a directory is there
    // does not tell: the server that made it may have ended before it was synced.
    std::bitset<1 << 16>  durable;
    std::vector<uint16_t> not_yet_durable;

    void add_unsynced(const std::string & path);
    void add_unsynced(const digest & name, const std::string & leaf);
};

// Makes a directory and those that lead to it where they are missing, for this user only; is_durable: they survive a
// power cut. Throws as the members of `directory` do.
void make_directories(const std::string & path, bool is_durable);

// Makes the names in a directory durable. Does nothing where the directory is gone, or this user may not read it.
void sync_directory(const std::string & path);

// Reads the header of a file, and with `data` also its data, which it checks. Any thread. `failed`: the system refused. An
// encrypted file is foreign without `seal`, and where it was encrypted by another; `path` must have the name that it had then.
read_result read_file(const std::string & path, file_header & header, file_facts & facts, state_bytes * data = nullptr,
                      const sealer * seal = nullptr);

// Calls act(name) for each name in a directory, until act() returns false; returns what act() returned last. Throws as
// the members of `directory` do where the directory cannot be opened. std::filesystem's iterator would end the process
// where there is no memory.
bool for_names_in(const std::string & path, const std::function<bool(const std::string &)> & act);

// Sets a file's time to one of file_facts. It does not matter where that fails.
void set_file_time(const std::string & path, int64_t modified_ns);

} // namespace atlas::memory
