#include "encryption-mark.hpp"

#include "atlas-seal.hpp"
#include "directory.hpp"
#include "file-descriptor.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

namespace atlas {

static constexpr char             NAME[] = "/encryption";
static constexpr std::string_view TEXT   = "what is here is encrypted\n";
static constexpr char GIVE[] = "give encryption_key_file (--atlas-encryption-key-file) or encryption_key_command "
                               "(--atlas-encryption-key-command)";

// Returns errno, 0 where it was read.
static int read_mark(const std::string & path, std::string & mark) {
    const file_descriptor opened(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (!opened.is_open()) {
        return errno;
    }
    mark.resize(2 * sealed_bytes(TEXT.size()));
    const ssize_t n = ::pread(opened.get(), mark.data(), mark.size(), 0);
    mark.resize(n > 0 ? (size_t) n : 0);
    return n < 0 ? errno : 0;
}

// Of several servers the first to link it wins, and none reads half a mark.
static void make_mark(const std::string & memory_path, const std::string & path, const sealer & seal) {
    const std::string mark = seal.seal(NAME, TEXT);
    const std::string own  = path + "." + std::to_string(::getpid());
    int               code = 0;
    try {
        memory::make_directories(memory_path, true);
        {
            const file_descriptor file(::open(own.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
            errno              = file.is_open() ? EIO : errno;
            const bool written = file.is_open() &&
                                 ::write(file.get(), mark.data(), mark.size()) == (ssize_t) mark.size() &&
                                 ::fsync(file.get()) == 0;
            code               = written ? 0 : errno;
        }
        if (code == 0 && ::link(own.c_str(), path.c_str()) != 0 && errno != EEXIST) {
            code = errno;
        }
        ::unlink(own.c_str());
        memory::sync_directory(memory_path);
    } catch (const std::system_error & error) {
        throw std::runtime_error("cannot make " + path +
                                 ", which says by what the memory is encrypted: " + error.what());
    }
    if (code != 0) {
        throw std::runtime_error("cannot make " + path +
                                 ", which says by what the memory is encrypted: " + std::strerror(code));
    }
}

void check_encryption_mark(const std::string & memory_path, const sealer * seal) {
    const std::string path = memory_path + NAME;
    std::string       mark;
    int               code = read_mark(path, mark);
    if (seal == nullptr) {
        if (code == 0) {
            throw std::runtime_error("the memory in " + memory_path + " is encrypted, and no key is given: " + GIVE +
                                     ", or another memory_save_path (--atlas-memory-path)");
        }
        return; // what is wrong with the directory is told where it is used
    }
    if (code == ENOENT || code == ENOTDIR) {
        make_mark(memory_path, path, *seal);
        code = read_mark(path, mark);
    }
    if (code != 0) {
        throw std::runtime_error("cannot read " + path +
                                 ", which says by what the memory is encrypted: " + std::strerror(code));
    }
    std::string text;
    switch (seal->unseal(NAME, mark, text)) {
        case unsealed::good: return;
        case unsealed::foreign:
            throw std::runtime_error("the memory in " + memory_path +
                                     " is encrypted with another key than that which encryption_key_file or "
                                     "encryption_key_command gives: give the right one, or another memory_save_path "
                                     "(--atlas-memory-path); nothing was changed");
        case unsealed::damaged:
            throw std::runtime_error(path +
                                     " is damaged: where you are sure of the key, remove the file, and the next start "
                                     "makes it anew");
    }
}

} // namespace atlas
