/* Called through ctypes.PyDLL, which keeps the interpreter lock: makes a file, then waits for a writer of a FIFO. */
#include <fcntl.h>
#include <unistd.h>

void hold(const char * entered, const char * fifo) {
    close(open(entered, O_CREAT | O_WRONLY, 0600));
    close(open(fifo, O_RDONLY));
}
