// Records and names in a directory that several machines mount: files that are made by a link, which only one of several can
// make. Touches files; for the threads of directory_tier.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace atlas {

// Where a record is kept; empty where the key is none of a record.
std::string record_file(const std::string & root, const std::string & key);

// Returns false where there is one. Throws std::system_error, and tier_error where the file system has no links.
bool create_record(const std::string & root, const std::string & target, std::string_view value, bool sync_each);
void replace_record(const std::string & root, const std::string & target, std::string_view value, bool sync_each);

// A name is an empty file.
std::string              name_file(const std::string & root, const std::string & set, const std::string & name);
std::vector<std::string> names_in(const std::string & root, const std::string & set, const std::string & after,
                                  size_t n_most);

} // namespace atlas
