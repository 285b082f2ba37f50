// SIGUSR1: where every Python thread is, also while one of them keeps the interpreter lock.
#pragma once

#include <functional>
#include <string>

namespace atlas {

// From now on SIGUSR1 has a thread write what ask() returns to standard error, or log what it throws. Of several functions
// the one given last is asked first, and the one before where it throws. Where the answer takes longer than two seconds,
// that thread calls the handler that the signal had before: that of Python's faulthandler, which takes no lock. Without such a
// handler, does nothing.
//
// faulthandler alone would not do: it reads stacks while their threads change them, and while Python works it may crash.
void show_stacks_on_signal(std::function<std::string()> ask);

} // namespace atlas
