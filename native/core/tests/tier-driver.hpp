// Does to a tier what standard input says, a line each, and answers each with a line of JSON.
//   probe MS KEY…            {"found": [true, …]}
//   get MS KEY…              {"sizes": [n, …], "wrong": how many were not as put makes them}
//   put MS TTL KEY BYTES     {}
//   keep MS TTL KEY…         {"found": [true, …]}
//   remove MS KEY…  ping MS  {}
// MS is the time until the deadline. All have "ms", which it took, and where it failed "failure" and "text".
#pragma once

// Returns the exit status: 2 for a URL that is refused, whose error is printed.
int drive_tier(const char * url);
