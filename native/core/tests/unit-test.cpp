// The tests of those parts of the library that need no directory of their own.
#include "cases.hpp"

int main(int argc, char ** argv) { return cases::run(argc, argv); }
