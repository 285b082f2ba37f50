"""How Python runs inside the server: the door from C++, the server as Python sees it, the plugins over it."""
